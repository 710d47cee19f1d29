"""Access of an attack to the target: the attack gets a view, which answers one kind of query and counts the images.

| access | view | the attack gets, for images that it chooses |
|---|---|---|
| `white_box` | `WhiteBoxView` | the network: logits, latents, gradients with respect to images, weights |
| `scores` | `ScoresView` | class probabilities |
| `labels` | `LabelsView` | predicted labels |
| `features` | `FeaturesView` | latents of one cut layer |

Enforced: for `scores`, `labels` and `features` the network is in another process (`server`), which accepts images and
returns answers. No message reads a weight, takes a gradient or changes the access, so the attack's process contains no
target that it could reach by Python's garbage collector, frames, closures or attributes. The other process validates
the images (else `InvalidConfigurationError`) and counts the queries; when it has ended, a query raises
`LostTargetError`. A white-box attack must not change the network: `unchanged` detects it.

Not enforced here: an attack in the harness's process could read the files of the store, search freed memory of that
process, or replace the methods that report the query counts. `isolation` runs it in a process of its own.
"""
