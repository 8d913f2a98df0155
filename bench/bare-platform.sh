#!/usr/bin/env bash
# The yardstick: the platform's own objects, applied one file after the other and waited for, as a person would do it
# once. usage: bench/bare-platform.sh LAB FOLDER
set -euo pipefail
lab=$1 folder=$2
master=$(sed -n 's/^ *ansible_host: //p' "inventories/$lab/hosts.yml" | head -1)
state=${XDG_STATE_HOME:-$HOME/.local/state}/quote-platform/labs/$lab
on_master() {
  ssh -i "$state/id_ed25519" -o UserKnownHostsFile="$state/known_hosts" -o IdentitiesOnly=yes -o LogLevel=ERROR \
    "root@$master" "$@"
}

tar -C "$folder" -c . | on_master 'umask 077 && mkdir /root/platform && tar -C /root/platform -x'
on_master bash -euo pipefail -s <<'MASTER'
export KUBECONFIG=/etc/kubernetes/admin.conf
for file in /root/platform/*.yaml; do
  # Kinds and webhooks of the file before may not answer yet.
  for ((tries = 1; ; tries++)); do
    kubectl apply --server-side --force-conflicts -f "$file" >/dev/null && break
    ((tries < 120)) || exit 1
    sleep 1
  done
done
wait() { kubectl wait --timeout=300s "$@" >/dev/null; }
kubectl create job -n etcd-snapshots --from=cronjob/etcd-snapshot first >/dev/null
wait -n local-path-storage --for=condition=Available deployment/local-path-provisioner
wait --for=condition=Available apiservice/v1beta1.metrics.k8s.io
kubectl rollout status -n traefik daemonset/traefik --timeout=300s >/dev/null
wait -n cert-manager --for=condition=Available deployment/cert-manager-webhook
wait --for=condition=Ready clusterissuer/letsencrypt-staging clusterissuer/letsencrypt-prod
wait -n quote-lab --for=condition=Ready cluster.postgresql.cnpg.io/postgres
wait -n quote-lab --for=condition=ContinuousArchiving cluster.postgresql.cnpg.io/postgres
wait -n monitoring --for=condition=Available prometheus.monitoring.coreos.com/main alertmanager.monitoring.coreos.com/main
wait -n etcd-snapshots --for=condition=Complete job/first
MASTER
