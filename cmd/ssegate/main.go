// Command ssegate is the edge in front of services that stream. It translates
// flags and signals for package gate, and decides nothing itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"ssegate/gate"
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

const usage = `Usage:
  ssegate [flags]           run the gate
  ssegate check [flags]     read the configuration, report all mistakes, and exit
  ssegate demo [-listen A]  three nodes, a model and a page to try it with; needs nothing around it
  ssegate version

Flags:
`

// Exit codes.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

func run(args, env []string, stdout, stderr io.Writer) int {
	verb := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	set := flag.NewFlagSet("ssegate", flag.ContinueOnError)
	set.SetOutput(stderr)
	file := set.String("config", variable(env, "SSEGATE_CONFIG"), "configuration file (TOML) (also SSEGATE_CONFIG)")
	upstream := set.String("upstream", "", "address of the service behind, or several separated by commas; enough to run without a file")
	demo := set.String("listen", "127.0.0.1:8080", "demo: address of the page")
	flags := map[string]string{}
	for _, key := range gate.Keys() {
		set.Func(key, "overrides "+key+" of the file (also "+gate.Variable(key)+")", func(v string) error { flags[key] = v; return nil })
	}
	set.Usage = func() {
		fmt.Fprint(stderr, usage)
		set.PrintDefaults()
	}
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case set.NArg() > 0:
		fmt.Fprintf(stderr, "ssegate: unexpected argument %q; flags come after the command\n", set.Arg(0))
		return exitUsage
	}
	listens := false
	set.Visit(func(f *flag.Flag) { listens = listens || f.Name == "listen" })
	if listens && verb != "demo" {
		fmt.Fprintln(stderr, "ssegate: -listen is where demo has its page; where clients come is -listen.public")
		return exitUsage
	}
	if *upstream != "" {
		flags["upstream"] = *upstream
	}
	load := func() (gate.Config, []gate.Notice, error) { return gate.Load(*file, env, flags) }
	switch verb {
	case "serve":
		if *file == "" && len(flags) == 0 && !configured(env) {
			set.Usage()
			return exitUsage
		}
		return serve(load, stderr)
	case "check":
		return check(load, stdout, stderr)
	case "demo":
		return runDemo(*demo, stdout, stderr)
	case "version":
		fmt.Fprintln(stdout, "ssegate", version())
		return exitOK
	}
	fmt.Fprintf(stderr, "ssegate: unknown command %q; ssegate -h tells what there is\n", verb)
	return exitUsage
}

// variable is the value of an environment variable, "" where it is not set.
func variable(env []string, name string) (value string) {
	for _, v := range env {
		if is, text, _ := strings.Cut(v, "="); is == name {
			value = text
		}
	}
	return value
}

// configured reports whether the environment says anything.
func configured(env []string) bool {
	for _, v := range env {
		if strings.HasPrefix(v, "SSEGATE_") {
			return true
		}
	}
	return false
}

type loader func() (gate.Config, []gate.Notice, error)

func check(load loader, stdout, stderr io.Writer) int {
	_, notices, err := load()
	for _, n := range notices {
		fmt.Fprintln(stderr, "note:", n)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	fmt.Fprintln(stdout, "configuration is good")
	return exitOK
}

func serve(load loader, stderr io.Writer) int {
	cfg, notices, err := load()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailed
	}
	logging := gate.NewLogging(cfg.Log, stderr)
	defer logging.TakeStd()()
	g, err := gate.New(cfg, gate.Options{Logging: logging, Version: version(), Notices: notices})
	if err != nil {
		fmt.Fprintln(stderr, "ssegate:", err)
		return exitFailed
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, drain := context.WithCancel(context.Background())
	defer drain()
	now, leave := context.WithCancel(context.Background())
	defer leave()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx, now) }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				fmt.Fprintln(stderr, "ssegate:", err)
				return exitFailed
			}
			return exitOK
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				g.Reload(load())
			case ctx.Err() == nil:
				drain()
			default:
				leave() // asked twice
			}
		}
	}
}

// version is what the build knows of itself.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return v + " " + info.GoVersion
}
