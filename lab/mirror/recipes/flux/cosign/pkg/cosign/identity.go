// Package cosign takes the place of cosign's: what names it here verifies charts in registries of images, see ../../../overlay.
package cosign

// Identity is whose signature is asked for.
type Identity struct {
	IssuerRegExp, SubjectRegExp string
}
