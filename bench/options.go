//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

// options are the flags.
type options struct {
	only, programs string
	runs           int
	scale          float64
	docs           string
	json           string
	from           string
	profile        string
	list           bool
}

// parse reads the flags, and sees to it that what is measured in an hour can
// then be written.
func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.only, "only", "", "workloads or families of them, by name, separated by commas; none: all")
	flags.StringVar(&o.programs, "programs", "", "programs, by name, separated by commas; none: all")
	flags.IntVar(&o.runs, "runs", 5, "how often each is measured; what no goal depends on half as often")
	flags.Float64Var(&o.scale, "scale", 1, "so many times the clients, events and time, but never less than a few")
	flags.StringVar(&o.docs, "docs", "", "folder to write benchmarks.md and the charts into")
	flags.StringVar(&o.json, "json", "", "file to write all that was measured into")
	flags.StringVar(&o.from, "from", "", "such a file, to write the documents from without measuring")
	flags.StringVar(&o.profile, "profile", "", "folder to write profiles of ssegate into (with perf, which costs it CPU)")
	flags.BoolVar(&o.list, "list", false, "list workloads and programs")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var errs []error
	if flags.NArg() > 0 {
		errs = append(errs, fmt.Errorf("what is %q?", flags.Args()))
	}
	if o.runs < 1 {
		errs = append(errs, fmt.Errorf("-runs %d: must be 1 or more", o.runs))
	}
	if !(o.scale > 0 && o.scale <= 100) {
		errs = append(errs, fmt.Errorf("-scale %g: must be above 0, and at most 100", o.scale))
	}
	if o.from != "" {
		flags.Visit(func(f *flag.Flag) {
			if f.Name != "from" && f.Name != "docs" && f.Name != "json" {
				errs = append(errs, fmt.Errorf("-%s: has no meaning with -from, which shows what was measured", f.Name))
			}
		})
	}
	if o.docs != "" {
		errs = append(errs, os.MkdirAll(o.docs, 0o755))
	}
	if o.json != "" && len(errs) == 0 {
		f, err := os.OpenFile(o.json, os.O_WRONLY|os.O_CREATE, 0o644)
		if err == nil {
			err = f.Close()
		}
		errs = append(errs, err)
	}
	return o, errors.Join(errs...)
}
