// Package azuredns is not in this build.
package azuredns

import (
	"context"
	"errors"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
)

// DNSProvider refuses.
type DNSProvider struct{}

// ProviderOption changes nothing.
type ProviderOption func(*DNSProvider)

var errAbsent = errors.New("this build has no client for Azure DNS")

// WithAzureZone changes nothing.
func WithAzureZone(cmacme.AzureZoneType) ProviderOption { return func(*DNSProvider) {} }

// NewDNSProviderCredentials refuses.
func NewDNSProviderCredentials(string, string, string, string, string, string, string, []string, bool, *cmacme.AzureManagedIdentity, ...ProviderOption) (*DNSProvider, error) {
	return nil, errAbsent
}

// Present refuses.
func (*DNSProvider) Present(context.Context, string, string, string) error { return errAbsent }

// CleanUp refuses.
func (*DNSProvider) CleanUp(context.Context, string, string, string) error { return errAbsent }
