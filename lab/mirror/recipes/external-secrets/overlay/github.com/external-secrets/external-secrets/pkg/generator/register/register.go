// Package register makes the generators known that this build has.
package register

import _ "github.com/external-secrets/external-secrets/pkg/generator/vault"
