"""Attacks in a process of their own, which never holds private images: those of plugins, and all under `--sandbox`.

- The attack's code is imported by that process alone; the harness works with a description of the attack (`declared`).
- Private images, results and other artifacts are not sent to it. With bubblewrap (Linux), it sees no folder with data,
  store or results, no other process and no network: method `bubblewrap`. Elsewhere it runs as the user who runs the
  harness, with an empty working folder and without the environment variables that name such folders: method `process`.
- For white-box access the target's weights are sent. Else the harness passes queries on to the target's own process.
- The harness counts the queries that it passes on. With white-box access the attack's process counts: it has the
  weights, and could compute without counting.
- Checkpoints and progress are sent to the harness, which stores or shows them.
- Evidence is sent back, its names and types are checked, and it is scored in a process that imported no attack.
- While an attack runs, no other process of the same user may trace or read the memory of the harness and of the
  target's process (Linux). The user root may, unless bubblewrap hides them.

Trusted are: built-in attacks without `--sandbox`; all attacks with `--no-sandbox`; defenses, data sets, evaluators and
networks of a plugin, which the harness imports, also if an attack is in the same module; and, with method `process`,
that the attack does not read files of the user who runs it.
"""
