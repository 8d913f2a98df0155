//go:build tools

// Package tools makes this module depend on what is built from it.
package tools

import (
	_ "github.com/elastic/cloud-on-k8s/v3/cmd"
)
