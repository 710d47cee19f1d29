"""Signatures of verifications by the maintainers, which `ssh-keygen -Y sign` makes and `ssh-keygen -Y verify` checks.

RESULTS/verifications/allowed_signers    keys of the maintainers; without it, signatures are not required
RESULTS/verifications/NAME.json.sig      signature of NAME.json, namespace `privbench`

The environment variable PRIVBENCH_ALLOWED_SIGNERS names another file of keys, outside of the results.
"""

import os
import subprocess
import tempfile
from pathlib import Path

from ..errors import CorruptArtifactError
from ..files.untrusted import read_bounded, shown
from .verification import FOLDER, Verification

#: A signature counts for this purpose only.
NAMESPACE = "privbench"
SIGNERS = "allowed_signers"
VARIABLE = "PRIVBENCH_ALLOWED_SIGNERS"
_MAX_SIGNATURE = 1 << 16
_SECONDS = 30


def read_signed(path: Path, results: Path) -> Verification:
    """Read a verification, whose signature must be a maintainer's where their keys are known.

    Without keys, who may write to `verifications` decides what counts.

    Raises:
        MissingDataError: there is none, or the signature is missing.
        CorruptArtifactError: it is damaged, or the signature is nobody's who is allowed to sign.
        IncompatibleRecordError: a newer privbench wrote it.
    """
    data = read_bounded(path, Verification.max_bytes)
    signers = allowed_signers(results)
    if signers is not None:
        _require_signature(data, path, signers)
    return Verification.parse(data, str(path))


def allowed_signers(results: Path) -> Path | None:
    """Return the file with the keys of the maintainers; `None` if there is none."""
    given = os.environ.get(VARIABLE)
    inside = results / FOLDER / SIGNERS
    return Path(given) if given else inside if os.path.lexists(inside) else None


def _require_signature(data: bytes, path: Path, signers: Path) -> None:
    signature = read_bounded(path.with_name(f"{path.name}.sig"), _MAX_SIGNATURE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "signature"
        file.write_bytes(signature)
        found = _run(["find-principals", "-s", str(file), "-f", str(signers)], b"")
        principal = found.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
        options = ["-f", str(signers), "-I", principal, "-n", NAMESPACE, "-s", str(file)]
        if found.returncode or not principal or _run(["verify", *options], data).returncode:
            raise CorruptArtifactError(
                f"expected {path} to be signed by a key in {signers}, got another signature: "
                f"{shown(found.stderr.decode('utf-8', 'replace')) or 'it does not fit the file'}; sign it with "
                f"`ssh-keygen -Y sign -n {NAMESPACE} -f KEY {path}`"
            )


def _run(words: list[str], data: bytes) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", *words], input=data, capture_output=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise CorruptArtifactError(
            f"expected ssh-keygen to check the signature of a verification, got {shown(cause)}; install OpenSSH"
        ) from None
