package cosign

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v3/pkg/cosign"

	"github.com/fluxcd/source-controller/internal/oci"
)

// Options are nothing here.
type Options func()

func WithPublicKey([]byte) Options               { return nil }
func WithRemoteOptions(...remote.Option) Options { return nil }
func WithIdentities([]cosign.Identity) Options   { return nil }
func WithTrustedRoot([]byte) Options             { return nil }
func WithInsecure(bool) Options                  { return nil }
func WithTLSConfig(*tls.Config) Options          { return nil }

// CosignVerifierFactory makes none.
type CosignVerifierFactory struct{}

func NewCosignVerifierFactory() *CosignVerifierFactory { return &CosignVerifierFactory{} }

// NewCosignVerifier refuses: cosign is not in this build.
func (*CosignVerifierFactory) NewCosignVerifier(context.Context, ...Options) (oci.Verifier, error) {
	return nil, errors.New("this build has no cosign")
}
