"""What the action commit_objects is given and returns."""

DOCUMENTATION = """
module: commit_objects
short_description: Commit the rendered objects of a cluster to its Git repository
description:
  - Judge the repository; then write each object that M(apply_component) has staged to a file of its own,
    delete files of objects that are gone, commit if anything differs, and push if there is a remote.
  - Values of Secrets, secrets on the controller and secret variables are in no file. One that stands
    elsewhere is marked, with a warning.
  - Runs on the controller. Supports check mode; the difference is what the commit would have.
options:
  state:
    description: Whether the repository is only judged, or committed to.
    type: str
    choices: [judged, committed]
    default: committed
  cluster: {type: str, required: true, description: Name of the cluster; a repository is that of one.}
  repository: {type: path, required: true, description: Its folder; it is made if it is not there.}
  branch: {type: str, default: main, description: "Branch that is committed to, made if it is not there."}
  remote: {type: str, default: "", description: "Where the branch is pushed to; empty for nowhere."}
  project: {type: path, required: true, description: "The platform's checkout; the message names its commit."}
  secrets_dir: {type: path, required: true, description: Folder of the cluster's secrets on the controller.}
  staging: {type: path, default: "", description: Folder with what was staged.}
  pins: {type: dict, default: {}, description: "Pins by name; the message names those that have changed."}
  chart:
    description: Component that is written as a chart, in place of all objects as they are; empty for these.
    type: str
    default: ""
  folder: {type: str, default: "", description: Folder of the chart in the repository.}
  image: {type: str, default: "", description: "Image that becomes the chart's value."}
author: [Quote Platform]
"""
RETURN = """
message: {type: str, returned: success, description: "Of the commit; empty where there is none."}
commit: {type: str, returned: success, description: "The newest commit of the branch; empty in check mode."}
pushed: {type: bool, returned: success, description: Whether something was pushed.}
"""
