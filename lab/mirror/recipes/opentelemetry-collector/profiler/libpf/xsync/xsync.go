// Package xsync guards a value by a lock.
package xsync

import "sync"

// RWMutex guards a value.
type RWMutex[T any] struct {
	guarded T
	lock    sync.RWMutex
}

// NewRWMutex guards a value.
func NewRWMutex[T any](guarded T) RWMutex[T] { return RWMutex[T]{guarded: guarded} }

// WLock gives the value to one.
func (m *RWMutex[T]) WLock() *T {
	m.lock.Lock()
	return &m.guarded
}

// WUnlock takes it back.
func (m *RWMutex[T]) WUnlock(given **T) {
	*given = nil
	m.lock.Unlock()
}
