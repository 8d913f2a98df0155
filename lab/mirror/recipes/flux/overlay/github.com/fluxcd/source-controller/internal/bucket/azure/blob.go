package azure

import (
	"context"
	"errors"
	"net/url"

	"github.com/fluxcd/pkg/auth"
	core "k8s.io/api/core/v1"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

var errNone = errors.New("this build has no client for buckets of Azure")

type client interface {
	BucketExists(context.Context, string) (bool, error)
	FGetObject(context.Context, string, string, string) (string, error)
	VisitObjects(context.Context, string, string, func(string, string) error) error
	ObjectIsNotFound(error) bool
	Close(context.Context)
}

// Option is nothing here.
type Option func()

func WithSecret(*core.Secret) Option    { return nil }
func WithProxyURL(*url.URL) Option      { return nil }
func WithAuth(...auth.Option) Option    { return nil }
func ValidateSecret(*core.Secret) error { return errNone }

// NewClient refuses: the client is not in this build.
func NewClient(context.Context, *sourcev1.Bucket, ...Option) (client, error) { return nil, errNone }
