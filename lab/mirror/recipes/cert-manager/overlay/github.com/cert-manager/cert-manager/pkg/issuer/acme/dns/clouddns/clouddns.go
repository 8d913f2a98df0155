// Package clouddns is not in this build.
package clouddns

import (
	"context"
	"errors"
)

// DNSProvider refuses.
type DNSProvider struct{}

var errAbsent = errors.New("this build has no client for Google Cloud DNS")

// NewDNSProvider refuses.
func NewDNSProvider(context.Context, string, []byte, []string, bool, string) (*DNSProvider, error) {
	return nil, errAbsent
}

// Present refuses.
func (*DNSProvider) Present(context.Context, string, string, string) error { return errAbsent }

// CleanUp refuses.
func (*DNSProvider) CleanUp(context.Context, string, string, string) error { return errAbsent }
