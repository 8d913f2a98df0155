// Vault with what this platform uses: its own tag `minimal`, and two of the plugins that the tag leaves out. The whole
// of it takes several times as long to build, for clouds and databases that nobody here asks.
package main

import (
	"os"
	"reflect"
	"unsafe"

	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/helper/builtinplugins"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/logical"
)

// add puts a plugin into a table of the registry. The tables are private, and files of a module cannot be replaced for
// a build, so it goes through reflection: a name that upstream changes ends the program at its start.
func add(table, name string, factory any) {
	field := reflect.ValueOf(builtinplugins.Registry).Elem().FieldByName(table)
	plugins := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	plugin := reflect.New(plugins.Type().Elem()).Elem()
	plugin.FieldByName("Factory").Set(reflect.ValueOf(factory))
	plugins.SetMapIndex(reflect.ValueOf(name), plugin)
}

func main() {
	add("credentialBackends", "kubernetes", logical.Factory(kubernetes.Factory))
	add("databasePlugins", "postgresql-database-plugin", builtinplugins.BuiltinFactory(postgresql.New))
	os.Exit(command.Run(os.Args[1:]))
}
