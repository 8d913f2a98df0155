package config

import "errors"

// GetAzureResticEnvVars refuses: Azure's client is not in this build.
func GetAzureResticEnvVars(map[string]string) (map[string]string, error) {
	return nil, errors.New("this build has no client for Azure")
}
