// Runs cert-manager's webhook as a configuration file says.
package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"

	"github.com/cert-manager/cert-manager/internal/apis/config/webhook/validation"
	"github.com/cert-manager/cert-manager/internal/webhook"
	"github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util/configfile"
	webhookfile "github.com/cert-manager/cert-manager/pkg/webhook/configfile"
)

func main() {
	file := flag.String("config", "", "file with a WebhookConfiguration")
	flag.Parse()
	logs.InitLogs()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(logs.NewContext(ctx, logs.Log, "webhook"), *file); err != nil {
		logs.Log.Error(err, "ended")
		logs.FlushLogs()
		os.Exit(1)
	}
}

func run(ctx context.Context, file string) error {
	read := webhookfile.New()
	loader, err := configfile.NewConfigurationFSLoader(nil, file)
	if err != nil {
		return err
	}
	if err := loader.Load(read); err != nil {
		return err
	}
	if wrong := validation.ValidateWebhookConfiguration(read.Config, nil); len(wrong) > 0 {
		return wrong.ToAggregate()
	}
	if err := logs.ValidateAndApply(&read.Config.Logging); err != nil {
		return err
	}
	server, err := webhook.NewCertManagerWebhookServer(logs.FromContext(ctx), *read.Config)
	if err != nil {
		return err
	}
	return server.Run(ctx)
}
