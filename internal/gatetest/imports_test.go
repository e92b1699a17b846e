package gatetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// Short names of what comes from elsewhere.
const (
	fasthttpPath = "github.com/valyala/fasthttp"
	redisPath    = "github.com/redis/go-redis/v9"
	amqpPath     = "github.com/rabbitmq/amqp091-go"
	consulPath   = "github.com/hashicorp/consul/api"
	zapPath      = "go.uber.org/zap"
	metricsPath  = "github.com/VictoriaMetrics/metrics"
	tomlPath     = "github.com/BurntSushi/toml"
	sysPath      = "golang.org/x/sys"
	josePath     = "github.com/go-jose/go-jose/v4"
	brotliPath   = "github.com/andybalholm/brotli"
	compressPath = "github.com/klauspost/compress"
)

// rooms says what the code of each package may import beside the standard
// library: packages of ours by their names below the module, others by path,
// with what lies below them. Every package has a line. Tests may import what
// they like.
var rooms = map[string][]string{
	"sse":                nil,
	"hub":                {"sse", sysPath},
	"intake":             {sysPath},
	"reconnect":          {"sse"},
	"reconnect/redislog": {"reconnect", "sse", redisPath},
	"registry":           {"sse"},
	"registry/redisreg":  {"registry", "sse", redisPath},
	"bus":                {"sse"},
	"bus/internal/link":  {"bus", "sse"},
	"bus/rabbit":         {"bus", "bus/internal/link", "sse", amqpPath},
	"bus/redisbus":       {"bus", "bus/internal/link", "sse", redisPath},
	"discover":           nil,
	"internal/rate":      nil,
	"discover/consul":    {"discover", "reconnect", consulPath}, // reconnect for its Backoff
	"cluster":            {"bus", "hub", "reconnect", "registry", "sse"},
	"auth":               {"registry", josePath},
	"push":               {"auth", "cluster", "internal/rate", "reconnect", "registry", "sse"},
	"push/client":        nil,
	"proxy":              {"auth", "cluster", "discover", "hub", "intake", "internal/rate", "push", "reconnect", "registry", "sse", fasthttpPath, zapPath, metricsPath, sysPath, brotliPath, compressPath},
	"gate": {
		"auth", "bus", "bus/rabbit", "bus/redisbus", "cluster", "discover", "discover/consul", "hub", "proxy",
		"push", "reconnect", "reconnect/redislog", "registry", "registry/redisreg", "sse",
		fasthttpPath, zapPath, metricsPath, tomlPath, redisPath,
	},
	"gate/demo":   {"gate"},
	"cmd/ssegate": {"gate", "gate/demo"},
}

// ban is a package that may not be reached from some of ours, not even by way
// of others, and why.
type ban struct {
	what string
	from []string
	why  string
}

var bans = []ban{
	{fasthttpPath, []string{"sse", "hub", "reconnect", "registry", "bus", "discover", "cluster", "auth", "push"},
		"fasthttp panics in a bubble of testing/synctest, where all of these are tested"},
	{zapPath, []string{"sse", "hub", "reconnect", "registry", "bus", "cluster", "discover", "auth", "push"},
		"these count and return; who owns the node says what is logged"},
	{metricsPath, []string{"sse", "hub", "reconnect", "registry", "bus", "cluster", "discover"},
		"these hand out numbers; how they are called is the node's business"},
	{redisPath, []string{"sse", "hub", "reconnect", "registry", "bus", "bus/rabbit", "cluster", "discover", "discover/consul", "proxy"},
		"the default is whole with nothing around it, and no caller knows its driver"},
	{amqpPath, []string{"sse", "hub", "reconnect", "registry", "bus", "bus/redisbus", "cluster", "discover", "discover/consul", "proxy"},
		"the default is whole with nothing around it, and no caller knows its driver"},
	{consulPath, []string{"sse", "hub", "reconnect", "registry", "bus", "cluster", "discover", "proxy"},
		"the default is whole with nothing around it, and no caller knows its driver"},
	{tomlPath, []string{"sse", "hub", "reconnect", "registry", "bus", "cluster", "discover", "proxy"},
		"configuration is turned into values once, in gate"},
	{"net/http", []string{"sse", "hub", "reconnect", "registry", "bus", "cluster"},
		"HTTP begins in proxy"},
	{"ssegate/hub", []string{"sse", "reconnect", "reconnect/redislog", "registry", "registry/redisreg", "bus", "bus/rabbit", "bus/redisbus", "discover", "discover/consul"},
		"who keeps and carries frames does not know who listens"},
	{"ssegate/bus", []string{"sse", "hub", "reconnect", "reconnect/redislog", "registry", "registry/redisreg", "discover", "discover/consul"},
		"the log carries truth without the bus"},
	{"ssegate/proxy", []string{"sse", "hub", "reconnect", "registry", "bus", "cluster", "discover"},
		"the HTTP faces stand on the rest, not the rest on them"},
}

// listed is a package as `go list` tells it.
type listed struct {
	ImportPath    string
	Imports, Deps []string
}

// broken lists what these packages import against the rules.
func broken(packages []listed) []string {
	var out []string
	for _, p := range packages {
		name, _ := strings.CutPrefix(p.ImportPath, "ssegate/")
		if strings.HasPrefix(name, "internal/gatetest") || within(name, "bench") {
			continue // the test world, and what measures: nothing of these is in the command
		}
		room, known := rooms[name]
		if !known {
			out = append(out, name+" has no line in rooms: say what it may import")
			continue
		}
		for _, imported := range p.Imports {
			short, ours := strings.CutPrefix(imported, "ssegate/")
			switch {
			case ours && (strings.HasPrefix(short, "internal/gatetest") || within(short, "bench")):
				out = append(out, name+" imports "+imported+": production never imports the test world")
			case ours && !slices.Contains(room, short), !ours && !standard(imported) && !slices.ContainsFunc(room, func(r string) bool { return within(imported, r) }):
				out = append(out, name+" imports "+imported+", which is not in its line of rooms")
			}
		}
		for _, b := range bans {
			if !slices.Contains(b.from, name) {
				continue
			}
			if i := slices.IndexFunc(p.Deps, func(d string) bool { return within(d, b.what) }); i >= 0 {
				out = append(out, name+" reaches "+p.Deps[i]+": "+b.why)
			}
		}
	}
	return out
}

// within reports whether a package is root or lies below it. net/http stands
// for itself alone: net/http/internal and the like come with it.
func within(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

// standard reports whether an import path is the standard library's.
func standard(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".") && first != "ssegate"
}

func TestImportsPointOneWay(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} { // they have files of their own
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "ssegate/...")
		cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list for %s: %v\n%s", system, err, complaints.String())
		}
		var packages []listed
		for d := json.NewDecoder(bytes.NewReader(out)); ; {
			var p listed
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			packages = append(packages, p)
		}
		for _, b := range broken(packages) {
			t.Errorf("%s: %s", system, b)
		}
		there := map[string]bool{}
		for _, p := range packages {
			there[strings.TrimPrefix(p.ImportPath, "ssegate/")] = true
		}
		for _, name := range slices.Sorted(maps.Keys(rooms)) {
			if !there[name] {
				t.Errorf("%s: %s has a line in rooms and is not there", system, name)
			}
		}
		for _, b := range bans {
			for _, name := range b.from {
				if !there[name] {
					t.Errorf("%s: the ban of %s names %s, which is not there", system, path.Base(b.what), name)
				}
			}
		}
	}
}

// The rules find what they are there to find.
func TestImportRulesBite(t *testing.T) {
	for what, p := range map[string]listed{
		"an import that has no place":    {ImportPath: "ssegate/sse", Imports: []string{"ssegate/hub"}},
		"a library that has no place":    {ImportPath: "ssegate/hub", Imports: []string{zapPath}},
		"a part of one":                  {ImportPath: "ssegate/registry", Imports: []string{redisPath + "/internal"}},
		"one whose name begins alike":    {ImportPath: "ssegate/hub", Imports: []string{sysPath + "info/unix"}},
		"fasthttp by way of another":     {ImportPath: "ssegate/cluster", Deps: []string{"context", fasthttpPath}},
		"HTTP in the hub":                {ImportPath: "ssegate/hub", Deps: []string{"net/http"}},
		"the test world":                 {ImportPath: "ssegate/gate", Imports: []string{"ssegate/internal/gatetest"}},
		"a part of the test world":       {ImportPath: "ssegate/gate", Imports: []string{"ssegate/internal/gatetest/service"}},
		"a room that nobody has planned": {ImportPath: "ssegate/attic"},
	} {
		if got := broken([]listed{p}); len(got) != 1 {
			t.Errorf("%s: %d complaints: %q", what, len(got), got)
		}
	}
	if got := broken([]listed{
		{ImportPath: "ssegate/hub", Imports: []string{"net", "ssegate/sse", sysPath + "/unix"}, Deps: []string{"net", "ssegate/sse"}},
		{ImportPath: "ssegate/internal/gatetest", Imports: []string{"ssegate/gate"}},
	}); len(got) > 0 {
		t.Errorf("what is allowed is refused: %q", got)
	}
}
