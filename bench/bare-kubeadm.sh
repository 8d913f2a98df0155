#!/usr/bin/env bash
# The yardstick: what a person would write who wants the same cluster once, on the same nodes, from the same mirror.
# No checks, no second run, no drift. usage: bench/bare-kubeadm.sh LAB KUBE_ROUTER_MANIFEST
set -euo pipefail
lab=$1 manifest=$2
inventory=inventories/$lab
value() { sed -n "s/^$1: //p" "$inventory/group_vars/platform/mirror.yml" | tr -d "'\""; }
packages=$(value kubernetes_packages_repository) runtime=$(value container_runtime_repository)
images=$(value image_registry_base_url)
pin() { sed -n "s/^$1: //p" group_vars/all/versions.yml; }
version=$(pin kubernetes_version) etcd=$(pin control_plane_etcd_image_tag) coredns=$(pin control_plane_coredns_image_tag)
mapfile -t nodes < <(sed -n 's/^ *ansible_host: //p' "$inventory/hosts.yml")
master=${nodes[0]}
state=${XDG_STATE_HOME:-$HOME/.local/state}/quote-platform/labs/$lab
on() {
  local node=$1
  shift
  ssh -i "$state/id_ed25519" -o UserKnownHostsFile="$state/known_hosts" -o IdentitiesOnly=yes -o LogLevel=ERROR \
    "root@$node" "$@"
}

prepare() {
  on "$1" bash -euo pipefail -s <<NODE
exec >/dev/null
printf 'net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n' > /etc/sysctl.d/90-kubernetes.conf
sysctl -q -p /etc/sysctl.d/90-kubernetes.conf
mkdir -p /etc/apt/keyrings
curl -fsS $packages/Release.key -o /etc/apt/keyrings/kubernetes.asc
curl -fsS $runtime/gpg -o /etc/apt/keyrings/docker.asc
echo "deb [signed-by=/etc/apt/keyrings/kubernetes.asc] $packages /" > /etc/apt/sources.list.d/kubernetes.list
echo "deb [signed-by=/etc/apt/keyrings/docker.asc] $runtime bookworm stable" > /etc/apt/sources.list.d/docker.list
apt-get -qq update
apt-get -qq install -y containerd.io kubelet kubeadm kubectl </dev/null >/dev/null 2>&1
for registry in docker.io registry.k8s.io ghcr.io quay.io; do
  mkdir -p /etc/containerd/certs.d/\$registry
  printf '[host."$images/v2/%s"]\noverride_path = true\n' \$registry > /etc/containerd/certs.d/\$registry/hosts.toml
done
cat > /etc/containerd/config.toml <<'TOML'
version = 3
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/etc/containerd/certs.d'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '$(pin container_runtime_pause_image)'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = true
TOML
systemctl restart containerd
systemctl enable -q kubelet
NODE
}

for node in "${nodes[@]}"; do prepare "$node" & jobs+=($!); done
for job in "${jobs[@]}"; do wait "$job"; done

on "$master" "cat > /root/kubeadm.yaml" <<YAML
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {ignorePreflightErrors: [SystemVerification]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v$version
etcd: {local: {imageTag: $etcd}}
dns: {imageTag: $coredns}
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
oomScoreAdj: 0
evictionHard: {memory.available: 100Mi, nodefs.available: 1Gi, imagefs.available: 1Gi}
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
on "$master" "kubeadm init --config /root/kubeadm.yaml" >/dev/null 2>&1
kubectl() { on "$master" "kubectl --kubeconfig /etc/kubernetes/admin.conf $*"; }
kubectl apply -f - <"$manifest" >/dev/null
join=$(on "$master" "kubeadm token create --print-join-command 2>/dev/null")
jobs=()
for node in "${nodes[@]:1}"; do on "$node" "$join --ignore-preflight-errors SystemVerification" >/dev/null 2>&1 & jobs+=($!); done
for job in "${jobs[@]}"; do wait "$job"; done
kubectl wait --for=condition=Ready nodes --all --timeout=180s >/dev/null
kubectl wait -n kube-system --for=condition=Available deployment/coredns --timeout=180s >/dev/null
