// Package libpf has what the Elasticsearch exporter names when it writes profiles, which this collector never has.
package libpf

import "errors"

var errNone = errors.New("this collector takes no profiles")

// Types of profiles.
type (
	FileID          [16]byte
	FrameType       int
	AddressOrLineno uint64
)

// FrameTypeFromString knows no type.
func FrameTypeFromString(string) FrameType { return 0 }

// NewFileID returns none.
func NewFileID(_, _ uint64) FileID { return FileID{} }

// FileIDFromString refuses.
func FileIDFromString(string) (FileID, error) { return FileID{}, errNone }

// FileIDFromBytes refuses.
func FileIDFromBytes([]byte) (FileID, error) { return FileID{}, errNone }

// IsZero tells that there is none.
func (FileID) IsZero() bool { return true }

// Bytes returns nothing.
func (f FileID) Bytes() []byte { return f[:] }

// Base64 returns nothing.
func (FileID) Base64() string { return "" }

// StringNoQuotes returns nothing.
func (FileID) StringNoQuotes() string { return "" }

// IsError tells that no frame is one.
func (FrameType) IsError() bool { return false }
