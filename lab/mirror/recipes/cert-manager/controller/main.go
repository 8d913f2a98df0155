// Runs cert-manager's controllers as a configuration file says.
package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"os/signal"
	"syscall"

	config "github.com/cert-manager/cert-manager/internal/apis/config/controller"
	"github.com/cert-manager/cert-manager/internal/apis/config/controller/v1alpha1"
	"github.com/cert-manager/cert-manager/internal/apis/config/controller/validation"
	"github.com/cert-manager/cert-manager/pkg/controller"
	controllerfile "github.com/cert-manager/cert-manager/pkg/controller/configfile"
	"github.com/cert-manager/cert-manager/pkg/healthz"
	dns "github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/util"
	"github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util/configfile"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	// Each of these makes itself known.
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/venafi"
)

func main() {
	file := flag.String("config", "", "file with a ControllerConfiguration")
	flag.Parse()
	logs.InitLogs()
	defer logs.FlushLogs()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(logs.NewContext(ctx, logs.Log, "controller"), *file); err != nil {
		logs.Log.Error(err, "ended")
		logs.FlushLogs()
		os.Exit(1)
	}
}

func run(ctx context.Context, file string) error {
	read := controllerfile.New()
	loader, err := configfile.NewConfigurationFSLoader(nil, file)
	if err != nil {
		return err
	}
	if err := loader.Load(read); err != nil {
		return err
	}
	if wrong := validation.ValidateControllerConfiguration(read.Config, nil); len(wrong) > 0 {
		return wrong.ToAggregate()
	}
	if err := logs.ValidateAndApply(&read.Config.Logging); err != nil {
		return err
	}
	factory, err := controller.NewContextFactory(ctx, options(read.Config))
	if err != nil {
		return err
	}
	base, err := factory.Build()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)

	certificates := base.SharedInformerFactory.Certmanager().V1()
	base.Metrics.SetupACMECollector(base.SharedInformerFactory.Acme().V1().Challenges().Lister())
	base.Metrics.SetupCertificateCollector(certificates.Certificates().Lister())
	base.Metrics.SetupIssuerCollector(certificates.Issuers().Lister())
	base.Metrics.SetupClusterIssuerCollector(certificates.ClusterIssuers().Lister())
	metrics, err := net.Listen("tcp", read.Config.MetricsListenAddress)
	if err != nil {
		return err
	}
	go func() { _ = base.Metrics.NewServer(metrics).Serve(metrics) }()

	election := read.Config.LeaderElectionConfig
	health := healthz.NewServer(election.HealthzTimeout)
	live, err := net.Listen("tcp", read.Config.HealthzListenAddress)
	if err != nil {
		return err
	}
	g.Go(func() error { return health.Start(ctx, live) })

	name, err := os.Hostname()
	if err != nil {
		return err
	}
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, election.Namespace, "cert-manager-controller",
		base.Client.CoreV1(), base.Client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: name})
	if err != nil {
		return err
	}
	leading := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:            lock,
		LeaseDuration:   election.LeaseDuration,
		RenewDeadline:   election.RenewDeadline,
		RetryPeriod:     election.RetryPeriod,
		ReleaseOnCancel: true,
		WatchDog:        health.LeaderHealthzAdaptor,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(leading) },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return err
	}
	g.Go(func() error {
		elector.Run(ctx)
		if ctx.Err() == nil {
			return errors.New("another one leads")
		}
		return nil
	})
	select {
	case <-ctx.Done():
		return g.Wait()
	case <-leading:
	}

	known := controller.Known()
	for _, name := range v1alpha1.DefaultEnabledControllers {
		one, err := known[name](factory)
		if err != nil {
			return err
		}
		g.Go(func() error { return one.Run(read.Config.NumberOfConcurrentWorkers, ctx) })
	}
	base.SharedInformerFactory.Start(ctx.Done())
	base.KubeSharedInformerFactory.Start(ctx.Done())
	base.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
	return g.Wait()
}

// options says it in the words of the library; it leaves out what this platform does not set.
func options(c *config.ControllerConfiguration) controller.ContextOptions {
	nameservers := c.ACMEDNS01Config.RecursiveNameservers
	if len(nameservers) == 0 {
		nameservers = dns.RecursiveNameservers
	}
	solver := c.ACMEHTTP01Config
	return controller.ContextOptions{
		KubernetesAPIQPS:   c.KubernetesAPIQPS,
		KubernetesAPIBurst: c.KubernetesAPIBurst,
		ACMEOptions: controller.ACMEOptions{
			HTTP01SolverImage:                 solver.SolverImage,
			HTTP01SolverResourceRequestCPU:    resource.MustParse(solver.SolverResourceRequestCPU),
			HTTP01SolverResourceRequestMemory: resource.MustParse(solver.SolverResourceRequestMemory),
			HTTP01SolverResourceLimitsCPU:     resource.MustParse(solver.SolverResourceLimitsCPU),
			HTTP01SolverResourceLimitsMemory:  resource.MustParse(solver.SolverResourceLimitsMemory),
			ACMEHTTP01SolverRunAsNonRoot:      solver.SolverRunAsNonRoot,
			HTTP01SolverNameservers:           solver.SolverNameservers,
			DNS01Nameservers:                  nameservers,
			DNS01CheckRetryPeriod:             c.ACMEDNS01Config.CheckRetryPeriod,
			DNS01CheckAuthoritative:           !c.ACMEDNS01Config.RecursiveNameserversOnly,
		},
		SchedulerOptions: controller.SchedulerOptions{MaxConcurrentChallenges: c.MaxConcurrentChallenges},
		IssuerOptions: controller.IssuerOptions{
			ClusterIssuerAmbientCredentials: c.ClusterIssuerAmbientCredentials,
			ClusterResourceNamespace:        c.ClusterResourceNamespace,
		},
		IngressShimOptions: controller.IngressShimOptions{
			DefaultIssuerKind:                 c.IngressShimConfig.DefaultIssuerKind,
			DefaultIssuerGroup:                c.IngressShimConfig.DefaultIssuerGroup,
			DefaultAutoCertificateAnnotations: c.IngressShimConfig.DefaultAutoCertificateAnnotations,
		},
		CertificateOptions: controller.CertificateOptions{
			CopiedAnnotationPrefixes:                 c.CopiedAnnotationPrefixes,
			CertificateRequestMinimumBackoffDuration: c.CertificateRequestMinimumBackoffDuration,
			CertificateRequestMaximumBackoffDuration: c.CertificateRequestMaximumBackoffDuration,
		},
	}
}
