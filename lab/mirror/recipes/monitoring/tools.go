//go:build tools

package tools

import (
	_ "github.com/brancz/kube-rbac-proxy/cmd/kube-rbac-proxy"
	_ "github.com/prometheus-operator/prometheus-operator/cmd/operator"
	_ "github.com/prometheus-operator/prometheus-operator/cmd/prometheus-config-reloader"
	_ "github.com/prometheus/blackbox_exporter"
	_ "github.com/prometheus/node_exporter"
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
	_ "k8s.io/kube-state-metrics/v2"
)
