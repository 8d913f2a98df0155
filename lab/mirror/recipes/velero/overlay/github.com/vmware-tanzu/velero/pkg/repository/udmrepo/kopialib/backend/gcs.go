package backend

import (
	"context"
	"errors"

	"github.com/kopia/kopia/repo/blob"
	"github.com/sirupsen/logrus"
)

// GCSBackend is not in this build.
type GCSBackend struct{}

// Setup refuses.
func (*GCSBackend) Setup(context.Context, map[string]string, logrus.FieldLogger) error {
	return errors.New("this build has no client for GCS")
}

// Connect refuses.
func (*GCSBackend) Connect(context.Context, bool, logrus.FieldLogger) (blob.Storage, error) {
	return nil, errors.New("this build has no client for GCS")
}
