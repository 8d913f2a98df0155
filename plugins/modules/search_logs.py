"""What the action search_logs is given."""

DOCUMENTATION = """
module: search_logs
short_description: Search the lines that collectors of logs have written to an S3 object store
description:
  - Reads the objects of the hours in question and writes the lines that fit to a file, in the order of time,
    one JSON object each. Asks nobody but the object store.
  - Runs on the controller. A dry run searches and writes no file.
options:
  endpoint: {type: str, default: "", description: URL; empty means AWS.}
  region: {type: str, required: true, description: Region of the bucket.}
  ca: {type: str, default: "", description: Authority of the endpoint as PEM; empty means the system's.}
  bucket: {type: str, required: true, description: Bucket.}
  access_key: {type: str, required: true, description: Access key of an account that may list and read it.}
  secret_key: {type: str, required: true, description: Its secret key.}
  prefix: {type: str, required: true, description: "Folder of the cluster, below C(lines/)."}
  since: {type: str, required: true, description: "First moment, in UTC: C(2026-11-30T10:00:00Z)."}
  until: {type: str, required: true, description: Moment before which the last line was written.}
  namespace: {type: str, default: "", description: "Namespace, with C(*); empty means all."}
  pod: {type: str, default: "", description: "Pod, with C(*); empty means all."}
  kind: {type: str, default: "", description: Kind of logs; empty means all.}
  pattern: {type: str, default: "", description: Regular expression that a line contains; empty means all.}
  path: {type: path, required: true, description: "File that is written, readable by its owner alone."}
author: [Quote Platform]
"""
RETURN = """
path: {type: str, returned: always, description: File that was written.}
found: {type: int, returned: always, description: Lines in it.}
read: {type: int, returned: always, description: Lines that were looked at.}
objects: {type: int, returned: always, description: Objects of the hours in question.}
repeated: {type: int, returned: always, description: "Lines that had been sent twice, and were written once."}
"""
