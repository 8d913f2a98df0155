// Package basehash stands beside libpf.
package basehash

import "errors"

// Hash128 is none.
type Hash128 struct{}

// New128 returns none.
func New128(_, _ uint64) Hash128 { return Hash128{} }

// New128FromBytes refuses.
func New128FromBytes([]byte) (Hash128, error) {
	return Hash128{}, errors.New("this collector takes no profiles")
}

// Base64 returns nothing.
func (Hash128) Base64() string { return "" }

// Bytes returns nothing.
func (Hash128) Bytes() []byte { return nil }
