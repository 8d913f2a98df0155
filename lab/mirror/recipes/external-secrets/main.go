// External Secrets Operator with what this platform uses, see module/: Vault, AWS, and Vault's generator. Its own command
// carries forty providers, which take many times as long to build. The flags are those of its own that the role sets.
package main

import (
	"flag"
	"os"
	"time"

	externalsecrets "github.com/external-secrets/external-secrets/apis/externalsecrets/v1"
	generators "github.com/external-secrets/external-secrets/apis/generators/v1alpha1"
	common "github.com/external-secrets/external-secrets/pkg/controllers/common"
	"github.com/external-secrets/external-secrets/pkg/controllers/externalsecret"
	"github.com/external-secrets/external-secrets/pkg/controllers/externalsecret/esmetrics"
	"github.com/external-secrets/external-secrets/pkg/controllers/generatorstate"
	metrics "github.com/external-secrets/external-secrets/pkg/controllers/metrics"
	"github.com/external-secrets/external-secrets/pkg/controllers/secretstore"
	"github.com/external-secrets/external-secrets/pkg/controllers/secretstore/ssmetrics"
	"github.com/external-secrets/external-secrets/pkg/feature"
	"github.com/go-logr/logr"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	kubernetes "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func main() {
	namespace := flag.String("namespace", "", "the only namespace that is served")
	address := flag.String("metrics-addr", ":8080", "where metrics are served")
	live := flag.String("live-addr", ":8082", "where /healthz is served")
	// This build has none of them; the official one is told to leave them.
	for _, name := range []string{"cluster-store-reconciler", "cluster-external-secret-reconciler",
		"cluster-push-secret-reconciler", "push-secret-reconciler"} {
		flag.Bool("enable-"+name, false, "not in this build")
	}
	flag.Parse()
	ctrl.SetLogger(zap.New())
	log := ctrl.Log.WithName("setup")
	if err := run(*namespace, *address, *live); err != nil {
		log.Error(err, "ended")
		os.Exit(1)
	}
}

// controllers are told what the operator's own command tells them by default.
func controllers(manager ctrl.Manager, namespace string, log logr.Logger) error {
	secrets, err := common.BuildManagedSecretClient(manager, namespace)
	if err != nil {
		return err
	}
	metrics.SetUpLabelNames(false)
	esmetrics.SetUpMetrics()
	ssmetrics.SetUpMetrics()
	options := func() controller.Options {
		return controller.Options{MaxConcurrentReconciles: 1, RateLimiter: common.BuildRateLimiter()}
	}
	store := secretstore.StoreReconciler{
		Client: manager.GetClient(), Log: log.WithName("SecretStore"), Scheme: manager.GetScheme(),
		ControllerClass: "default", RequeueInterval: 5 * time.Minute,
	}
	if err := store.SetupWithManager(manager, options()); err != nil {
		return err
	}
	states := generatorstate.Reconciler{
		Client: manager.GetClient(), Log: log.WithName("GeneratorState"), Scheme: manager.GetScheme(),
		RestConfig: manager.GetConfig(),
	}
	if err := states.SetupWithManager(manager, options()); err != nil {
		return err
	}
	external := externalsecret.Reconciler{
		Client: manager.GetClient(), SecretClient: secrets, Log: log.WithName("ExternalSecret"),
		Scheme: manager.GetScheme(), RestConfig: manager.GetConfig(), ControllerClass: "default",
		RequeueInterval: time.Hour, EnableFloodGate: true, EnableGeneratorState: true,
	}
	return external.SetupWithManager(manager, options())
}

func run(namespace, address, live string) error {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		kubernetes.AddToScheme, externalsecrets.AddToScheme, generators.AddToScheme,
	} {
		utilruntime.Must(add(known))
	}
	options := ctrl.Options{
		Scheme:                 known,
		Metrics:                server.Options{BindAddress: address},
		HealthProbeBindAddress: live,
		// Secrets are read when they are asked for, not all of them held.
		Client: client.Options{Cache: &client.CacheOptions{
			DisableFor: []client.Object{&core.Secret{}, &core.ConfigMap{}},
		}},
	}
	if namespace != "" {
		options.Cache.DefaultNamespaces = map[string]cache.Config{namespace: {}}
	}
	rest, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(rest, options)
	if err != nil {
		return err
	}
	if err := controllers(manager, namespace, ctrl.Log.WithName("controllers")); err != nil {
		return err
	}
	if err := manager.AddHealthzCheck("healthz", healthz.Ping); err != nil {
		return err
	}
	for _, one := range feature.Features() {
		if one.Initialize != nil {
			one.Initialize()
		}
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
