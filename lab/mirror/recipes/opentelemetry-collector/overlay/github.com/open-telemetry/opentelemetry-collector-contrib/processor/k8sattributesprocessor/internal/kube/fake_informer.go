package kube

import (
	"context"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// NewNoOpInformer takes the place of an informer for a kind that nothing asks for. Upstream's own, and its doubles for
// tests in this file, lack what the newer client-go of this recipe wants of them.
func NewNoOpInformer(metadata.Interface) cache.SharedInformer {
	synced := make(chan struct{})
	close(synced)
	return noOp{cache.NewSharedInformer(&cache.ListWatch{}, &meta.PartialObjectMetadata{}, 0), synced}
}

type noOp struct {
	cache.SharedInformer // never started
	synced               chan struct{}
}

func (n noOp) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return n, nil
}

func (noOp) Run(stop <-chan struct{}) { <-stop }

func (noOp) RunWithContext(ctx context.Context) { <-ctx.Done() }

func (noOp) HasSynced() bool { return true }

func (n noOp) HasSyncedChecker() cache.DoneChecker { return n }

func (noOp) Name() string { return "nothing" }

func (n noOp) Done() <-chan struct{} { return n.synced }
