package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"ssegate/gate"
	"ssegate/gate/demo"
)

// runDemo runs the demo on an address until somebody has seen enough.
func runDemo(listen string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return demoUntil(ctx, listen, stdout, stderr)
}

func demoUntil(ctx context.Context, listen string, stdout, stderr io.Writer) int {
	d, err := demo.New(demo.Config{
		Listen:  listen,
		Logging: gate.NewLogging(gate.Log{Level: "error", Format: "console"}, stderr), // killed nodes have much to warn of
		Version: version(),
	})
	if err != nil {
		fmt.Fprintln(stderr, "ssegate:", err)
		fmt.Fprintln(stderr, "ssegate: another address may do: ssegate demo -listen 127.0.0.1:0")
		return exitFailed
	}
	fmt.Fprintf(stdout, "ssegate demo: open %s\n", d.URL())
	fmt.Fprintln(stdout, "Ask the model, then cut the connection, reload, hop to another node, kill one: no word is lost. Ctrl-C ends it.")
	if err := d.Run(ctx); err != nil {
		fmt.Fprintln(stderr, "ssegate:", err)
		return exitFailed
	}
	return exitOK
}
