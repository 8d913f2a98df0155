//go:build minimal

package builtinplugins

import (
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/plugins/database/postgresql"
)

// extendAddonPlugins adds what this platform uses to upstream's own small choice.
func extendAddonPlugins(r *registry) {
	r.credentialBackends["kubernetes"] = credentialBackend{Factory: kubernetes.Factory}
	r.databasePlugins["postgresql-database-plugin"] = databasePlugin{Factory: postgresql.New}
}
