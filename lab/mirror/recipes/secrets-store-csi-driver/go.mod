// Only for the manifests that its release carries.
module quote-platform/recipes/secrets-store-csi-driver

go 1.26.0

require sigs.k8s.io/secrets-store-csi-driver v1.5.5
