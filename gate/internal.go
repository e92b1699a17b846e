package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"ssegate/cluster"
	"ssegate/hub"
	"ssegate/proxy"
	"ssegate/reconnect"
)

// internalServer serves health, readiness and metrics, and the push API.
func (g *Gate) internalServer() *http.Server {
	mux := http.NewServeMux()
	get := func(path string, f http.HandlerFunc) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "use GET")
				return
			}
			f(w, r)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "not_found", "there is no such path on the internal listener")
	})
	get("/healthz", g.healthz)
	get("/health", g.healthz)
	get("/readyz", g.readyz)
	get("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		g.metrics.WritePrometheus(w)
		g.writePushRefused(w)
		metrics.WriteProcessMetrics(w)
	})
	if g.push != nil {
		api := g.pushAPI()
		mux.Handle("/api/", api)
		mux.HandleFunc("/api/v1/streams/", func(w http.ResponseWriter, r *http.Request) {
			g.piped.Add(1)
			defer g.piped.Add(-1)
			api.ServeHTTP(w, r)
		})
	}
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
}

func serveInternal(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// refuse answers as the push API and the public listener do.
func refuse(w http.ResponseWriter, status int, reason, detail string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]map[string]string{"error": {"reason": reason, "detail": detail}})
}

func (g *Gate) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"status":"ok"}`+"\n")
}

// readiness is what /readyz answers. A dependency that is away does not make
// a node unready: its own streams flow on.
type readiness struct {
	Ready        bool              `json:"ready"`
	Draining     bool              `json:"draining"`
	Node         string            `json:"node"`
	Dependencies map[string]string `json:"dependencies"` // "up", or what is wrong
	Nodes        []string          `json:"nodes"`        // live nodes as last listed
	Connections  int               `json:"connections"`
	Streams      int               `json:"streams"`
}

func (g *Gate) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 500*time.Millisecond)
	defer cancel()
	owned, _ := g.node.Streams()
	out := readiness{
		Draining: g.draining.Load(), Node: g.id,
		Dependencies: g.dependencies(ctx), Nodes: []string{},
		Connections: g.node.Connections(), Streams: owned,
	}
	out.Ready = !out.Draining
	for id := range g.node.Peers() {
		out.Nodes = append(out.Nodes, id)
	}
	w.Header().Set("Content-Type", "application/json")
	if !out.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(out)
}

// dependencies asks every outside service at once, within ctx.
func (g *Gate) dependencies(ctx context.Context) map[string]string {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := map[string]string{}
	for name, ask := range g.drivers.health {
		wg.Go(func() {
			state := "up"
			if err := ask(ctx); err != nil {
				state = "down: " + err.Error()
			}
			mu.Lock()
			out[name] = state
			mu.Unlock()
		})
	}
	wg.Wait()
	if g.drivers.busName != "" {
		out[g.drivers.busName] = "up"
		if !g.node.Stats().BusUp {
			out[g.drivers.busName] = "down: not connected; followers are fed from the log"
		}
	}
	return out
}

// register names what the node counts; nothing is kept, all is read when
// asked.
func (g *Gate) register() {
	set := g.metrics
	gauge := func(name string, f func() float64) { set.NewGauge(name, f) }
	counter := func(name string, f func() uint64) {
		set.NewGauge(name, func() float64 { return float64(f()) })
	}
	gauge("ssegate_connections", func() float64 { return float64(g.node.Connections()) })
	gauge(`ssegate_streams{role="owner"}`, func() float64 { n, _ := g.node.Streams(); return float64(n) })
	gauge(`ssegate_streams{role="replica"}`, func() float64 { _, n := g.node.Streams(); return float64(n) })
	gauge("ssegate_nodes", func() float64 { return float64(len(g.node.Peers())) })
	gauge("ssegate_draining", func() float64 { return truth(g.draining.Load()) })
	gauge("ssegate_bus_up", func() float64 { return truth(g.node.Stats().BusUp) })
	gauge("ssegate_outbox_streams", func() float64 { return float64(g.node.Stats().Outbox) })
	gauge(fmt.Sprintf("ssegate_info{version=%q,node=%q}", g.opts.Version, g.id), func() float64 { return 1 })
	counter(`ssegate_reloads_total{result="good"}`, g.reloads.good.Load)
	counter(`ssegate_reloads_total{result="refused"}`, g.reloads.bad.Load)
	cl := func(name string, f func(s clusterStats) uint64) {
		counter(name, func() uint64 { return f(g.node.Stats()) })
	}
	cl("ssegate_frames_logged_total", func(s clusterStats) uint64 { return s.FramesLogged })
	cl("ssegate_frames_sent_total", func(s clusterStats) uint64 { return s.FramesSent })
	cl("ssegate_frames_received_total", func(s clusterStats) uint64 { return s.FramesReceived })
	cl(`ssegate_errors_total{what="log"}`, func(s clusterStats) uint64 { return s.LogErrors })
	cl(`ssegate_errors_total{what="registry"}`, func(s clusterStats) uint64 { return s.RegistryErrors })
	cl(`ssegate_errors_total{what="bus"}`, func(s clusterStats) uint64 { return s.SendErrors })
	for _, why := range lostReasons {
		cl(fmt.Sprintf("ssegate_bus_lost_total{reason=%q}", why), func(s clusterStats) uint64 { return s.Lost[why] })
	}
	cl("ssegate_replica_jumps_total", func(s clusterStats) uint64 { return s.Jumps })
	cl("ssegate_logs_rewritten_total", func(s clusterStats) uint64 { return s.Rewritten })
	cl("ssegate_tail_check_found_total", func(s clusterStats) uint64 { return s.FoundByCheck })
	cl("ssegate_gaps_total", func(s clusterStats) uint64 { return s.Gaps })
	cl("ssegate_bus_garbage_total", func(s clusterStats) uint64 { return s.Garbage })
	cl("ssegate_registry_dropped_total", func(s clusterStats) uint64 { return s.RegistryDropped })
	cl("ssegate_nodes_gone_total", func(s clusterStats) uint64 { return s.NodesGone })
	cl("ssegate_takeovers_total", func(s clusterStats) uint64 { return s.Takeovers })
	cl("ssegate_elections_unheld_total", func(s clusterStats) uint64 { return s.ElectionsUnheld })
	counter("ssegate_log_lines_sampled_total", g.opts.Logging.Sampled)
	g.registerHub()
	g.registerMemory()
	g.registerPush()
}

// registerMemory names what the log in memory holds and has dropped, where that
// is the log.
func (g *Gate) registerMemory() {
	m := g.drivers.memory
	if m == nil {
		return
	}
	g.metrics.NewGauge("ssegate_log_bytes", func() float64 { return float64(m.Log.Stats().Bytes) })
	for why := range len(m.Log.Stats().Dropped) {
		name := fmt.Sprintf("ssegate_log_frames_dropped_total{reason=%q}", reconnect.Reason(why))
		g.metrics.NewGauge(name, func() float64 { return float64(m.Log.Stats().Dropped[why].Frames) })
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// registerHub names what the hub counts.
func (g *Gate) registerHub() {
	h := func(name string, f func(s hub.Stats) int64) {
		g.metrics.NewGauge(name, func() float64 { return float64(f(g.hub.Stats())) })
	}
	h("ssegate_followers", func(s hub.Stats) int64 { return s.Followers })
	h("ssegate_followers_catching_up", func(s hub.Stats) int64 { return s.CatchingUp })
	h("ssegate_ring_bytes", func(s hub.Stats) int64 { return s.RingBytes })
	h("ssegate_frames_total", func(s hub.Stats) int64 { return s.Frames })
	h("ssegate_deliveries_total", func(s hub.Stats) int64 { return s.Deliveries })
	h("ssegate_skipped_total", func(s hub.Stats) int64 { return s.Skipped })
	h("ssegate_delivered_bytes_total", func(s hub.Stats) int64 { return s.Bytes })
	h("ssegate_heartbeats_total", func(s hub.Stats) int64 { return s.Heartbeats })
	h("ssegate_catch_ups_total", func(s hub.Stats) int64 { return s.CatchUps })
	h(`ssegate_ring_frames_dropped_total{reason="full"}`, func(s hub.Stats) int64 { return s.Trimmed })
	h(`ssegate_ring_frames_dropped_total{reason="memory"}`, func(s hub.Stats) int64 { return s.TrimmedMemory })
	h(`ssegate_ring_frames_dropped_total{reason="unflushed"}`, func(s hub.Stats) int64 { return s.TrimmedUnflushed })
	h("ssegate_ring_frames_ignored_total", func(s hub.Stats) int64 { return s.Ignored })
	for _, why := range []hub.Reason{
		hub.ReasonClient, hub.ReasonGhost, hub.ReasonWrite, hub.ReasonSlow, hub.ReasonGap, hub.ReasonSource, hub.ReasonClosed,
		hub.ReasonShutdown, hub.ReasonConn, hub.ReasonFinished, hub.ReasonEnded, hub.ReasonCut, hub.ReasonStopped, hub.ReasonLost,
		hub.ReasonDetached, cluster.ReasonMoved, cluster.ReasonKicked, proxy.ReasonExpired,
	} {
		h(fmt.Sprintf("ssegate_followers_left_total{reason=%q}", why), func(s hub.Stats) int64 { return s.Left[why] })
	}
}
