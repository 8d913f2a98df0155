"""A claim is bound by the first pod that uses it, and keeps its data when the pod goes."""

from scenario import Cluster, MakePod

IMAGE = "docker.io/library/busybox:1.37.0"


def test_fast_ssd_is_the_default_class(cluster: Cluster) -> None:
    annotations = cluster.get("storageclass fast-ssd")["metadata"]["annotations"]
    assert annotations["storageclass.kubernetes.io/is-default-class"] == "true"


def test_data_outlives_the_pod(cluster: Cluster, namespace: str, pod: MakePod) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast-ssd",
            "resources": {"requests": {"storage": "16Mi"}},
        },
    }
    cluster.apply(namespace, claim)

    def use(name: str, script: str) -> None:
        spec = pod(
            name,
            IMAGE,
            "sh",
            "-c",
            script,
            restartPolicy="Never",
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            container={
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            },
        )
        cluster.apply(namespace, spec)
        # A running container may not have come to its first line yet; one that has ended has written all.
        cluster.wait(f"--namespace={namespace} --for=jsonpath='{{.status.phase}}'=Succeeded pod/{name}", 120)

    use("first", "echo kept > /data/word")
    assert cluster.get(f"persistentvolumeclaim data --namespace={namespace}")["status"]["phase"] == "Bound"
    cluster.run(f"delete pod first --namespace={namespace}")
    use("second", "cat /data/word")
    assert cluster.run(f"logs second --namespace={namespace}").strip() == "kept"
