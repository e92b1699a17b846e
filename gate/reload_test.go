package gate

import (
	"testing"
	"time"
)

// What a reload says takes effect, also where more than the table of routes
// has to know of it: records of streams live as long as the longest log_ttl.
func TestReloadKeepsRecordsLonger(t *testing.T) {
	const file = `[listen]
public = "127.0.0.1:0"
internal = ""
[cluster]
heartbeat = "50ms"
dead_after = "100ms"
[[upstream]]
name = "chat"
targets = ["http://127.0.0.1:1"]
[[route]]
`
	load := func(ttl string) Config {
		t.Helper()
		cfg, _, err := parse("ssegate.toml", file+"log_ttl = \""+ttl+"\"\n", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	g, err := New(load("2s"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if got := g.node.KeepAtLeast(0); got != 2*time.Second {
		t.Errorf("at the start records are kept for %v", got)
	}
	// A shorter one is for new streams: those that run have logs of a minute.
	for _, ttl := range []string{"1m", "1s"} {
		if err := g.Reload(load(ttl), nil, nil); err != nil {
			t.Fatal(err)
		}
		if got := g.node.KeepAtLeast(0); got != time.Minute {
			t.Errorf("with log_ttl = %s records are kept for %v", ttl, got)
		}
	}
}
