package digest

import "crypto"

// RegisterAlgorithm is of a later version of this module, to which Flux would bring all that share it.
func RegisterAlgorithm(name Algorithm, hash crypto.Hash) bool {
	algorithms[name] = hash
	return true
}
