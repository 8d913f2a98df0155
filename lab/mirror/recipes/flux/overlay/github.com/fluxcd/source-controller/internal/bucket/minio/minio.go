package minio

import (
	"context"
	"crypto/tls"
	"errors"
	"net/url"

	"github.com/fluxcd/pkg/auth"
	core "k8s.io/api/core/v1"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

var errNone = errors.New("this build has no client for buckets of S3")

type client interface {
	BucketExists(context.Context, string) (bool, error)
	FGetObject(context.Context, string, string, string) (string, error)
	VisitObjects(context.Context, string, string, func(string, string) error) error
	ObjectIsNotFound(error) bool
	Close(context.Context)
}

// Option is nothing here.
type Option func()

func WithSecret(*core.Secret) Option                            { return nil }
func WithProxyURL(*url.URL) Option                              { return nil }
func WithAuth(...auth.Option) Option                            { return nil }
func ValidateSecret(*core.Secret) error                         { return errNone }
func WithTLSConfig(*tls.Config) Option                          { return nil }
func WithSTSSecret(*core.Secret) Option                         { return nil }
func WithSTSTLSConfig(*tls.Config) Option                       { return nil }
func ValidateSTSProvider(string, *sourcev1.BucketSTSSpec) error { return errNone }
func ValidateSTSSecret(string, *core.Secret) error              { return errNone }

// NewClient refuses: the client is not in this build.
func NewClient(context.Context, *sourcev1.Bucket, ...Option) (client, error) { return nil, errNone }
