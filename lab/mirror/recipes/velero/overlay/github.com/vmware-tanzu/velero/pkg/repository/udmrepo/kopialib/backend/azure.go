package backend

import (
	"context"
	"errors"

	"github.com/kopia/kopia/repo/blob"
	"github.com/sirupsen/logrus"
)

// AzureBackend is not in this build.
type AzureBackend struct{}

// Setup refuses.
func (*AzureBackend) Setup(context.Context, map[string]string, logrus.FieldLogger) error {
	return errors.New("this build has no client for Azure")
}

// Connect refuses.
func (*AzureBackend) Connect(context.Context, bool, logrus.FieldLogger) (blob.Storage, error) {
	return nil, errors.New("this build has no client for Azure")
}
