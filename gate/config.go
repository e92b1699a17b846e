package gate

import "time"

// Config is what one node is told. Default, DefaultUpstream and DefaultRoute
// hold every default; Load reads a file, the environment and flags over them
// and reports all mistakes at once. A Config that Load returned without an
// error is valid as a whole.
//
// Beside the toml name a field's tags say what the machinery of Load, Diff
// and String needs to know:
//
//	reload:"restart"   a change takes effect at the next start only (on a
//	                   table: all its keys)
//	reload:"later"     the name is taken, but nothing reads the key yet: to set
//	                   it is a mistake
//	oneof:"a,b"        the only texts allowed
//	min:"10ms"         the least allowed ("0 or 10ms": 0 as well); without it,
//	                   whatever is not negative
//	present:"push"     no key of its own: true when the table was named at all
//
// docs/configuration.md and ssegate.toml name every key with its default; a
// test keeps them true.
type Config struct {
	Node     Node       `toml:"node"`
	Listen   Listen     `toml:"listen"`
	Cluster  Cluster    `toml:"cluster" reload:"restart"`
	Upstream []Upstream `toml:"upstream"`
	Route    []Route    `toml:"route"`
	Push     Push       `toml:"push"`
	Auth     Auth       `toml:"auth"`
	CORS     CORS       `toml:"cors"`
	Limits   Limits     `toml:"limits"`
	Log      Log        `toml:"log"`
}

// Node is the table [node]: who this node is and how it leaves.
type Node struct {
	ID           string        `toml:"id" reload:"restart"`        // "" = host name and a random part
	Advertise    string        `toml:"advertise" reload:"restart"` // public base URL of this node, for redirects
	DrainTimeout time.Duration `toml:"drain_timeout"`              // how long answers may finish after SIGTERM
}

// Listen is the table [listen]: the two listeners.
type Listen struct {
	Public            string        `toml:"public" reload:"restart"`                         // clients
	Internal          string        `toml:"internal" reload:"restart"`                       // health, metrics, push API; "" = none
	TrustedProxies    []string      `toml:"trusted_proxies"`                                 // addresses or CIDRs that may set X-Forwarded-*
	ReadHeaderTimeout time.Duration `toml:"read_header_timeout" reload:"restart" min:"10ms"` // for a request's head to arrive whole
	IdleTimeout       time.Duration `toml:"idle_timeout" reload:"restart" min:"10ms"`        // between two requests of a kept connection
	MaxHeader         Size          `toml:"max_header" reload:"restart" min:"4KiB"`          // request line and headers together
}

// Cluster is the table [cluster]: empty URLs make one node with everything in
// memory.
type Cluster struct {
	Redis     SecretURL     `toml:"redis"`
	RabbitMQ  SecretURL     `toml:"rabbitmq"`
	Consul    SecretURL     `toml:"consul"`
	Prefix    string        `toml:"prefix"`  // of Redis keys, the exchange, the Consul service
	Service   string        `toml:"service"` // Consul service of the nodes; "" = Prefix
	Heartbeat time.Duration `toml:"heartbeat" min:"10ms"`
	DeadAfter time.Duration `toml:"dead_after" min:"20ms"`
	// CheckEvery is how often the one cleaner looks for dead nodes.
	CheckEvery time.Duration `toml:"check_every" min:"10ms"`
	TailCheck  time.Duration `toml:"tail_check" min:"10ms"` // how often followers compare their place with the log's tail
	Redirect   bool          `toml:"redirect"`              // 307 new clients to the peer with fewest connections
	RedisWait  int           `toml:"redis_wait"`            // replicas that must have a push before it is answered; 0 = none
}

// Upstream is one [[upstream]]: a service behind the gate. It has Targets or
// Service, never both.
type Upstream struct {
	Name           string        `toml:"name"`
	Targets        []string      `toml:"targets"` // scheme://host:port
	Service        string        `toml:"service"` // a Consul service
	Balance        string        `toml:"balance" oneof:"round-robin,least-connections"`
	ConnectTimeout time.Duration `toml:"connect_timeout" min:"1ms"`
	HeaderTimeout  time.Duration `toml:"header_timeout" min:"0 or 1ms"` // 0 = no limit
	IdleTimeout    time.Duration `toml:"idle_timeout" min:"0 or 1ms"`   // between bytes of an event stream; 0 = no limit
	MaxFails       int           `toml:"max_fails"`                     // failures in a row that set a target aside; 0 = never
	FailFor        time.Duration `toml:"fail_for" min:"1ms"`            // how long it is set aside
	HealthPath     string        `toml:"health_path"`                   // "" = no active checks
	HealthEvery    time.Duration `toml:"health_every" min:"10ms"`
	HealthTimeout  time.Duration `toml:"health_timeout" min:"1ms"`
	HostHeader     string        `toml:"host_header"` // "client", "upstream" or a literal host
	CA             string        `toml:"ca"`          // PEM file; "" = the system's roots
	ServerName     string        `toml:"server_name"` // TLS name; "" = the target's host
	Insecure       bool          `toml:"insecure"`    // no check of the certificate
}

// Route is one [[route]]: what happens to the requests it matches.
type Route struct {
	Name       string   `toml:"name"`        // in logs, metrics and the status API; "" = Host and Path
	Host       string   `toml:"host"`        // "" = any; "*.example.com" = any sub-domain
	Path       string   `toml:"path"`        // prefix, cut at path segments; the longest wins
	Methods    []string `toml:"methods"`     // empty = any
	Upstream   string   `toml:"upstream"`    // name; "" = the only one
	HostHeader string   `toml:"host_header"` // "" = as the upstream says
	Auth       string   `toml:"auth" oneof:"pass,require"`

	Attach            string        `toml:"attach" oneof:"id,key,content,off"`
	AttachKey         string        `toml:"attach_key"` // "header:Name", "query:name" or "json:member"
	AttachFor         time.Duration `toml:"attach_for"`
	AttachUnavailable string        `toml:"attach_unavailable" oneof:"run,refuse"`
	AttachBodyLimit   Size          `toml:"attach_body_limit" min:"1"`

	OnDisconnect string        `toml:"on_disconnect" oneof:"detach,cancel"`
	DetachFor    time.Duration `toml:"detach_for" min:"1ms"`

	Heartbeat          time.Duration `toml:"heartbeat" min:"10ms"` // silence before one is written
	HeartbeatStyle     string        `toml:"heartbeat_style" oneof:"line,comment,event,off"`
	HeartbeatData      string        `toml:"heartbeat_data"`                       // of style "event"
	FirstByteHeartbeat time.Duration `toml:"first_byte_heartbeat" min:"0 or 10ms"` // 0 = off

	Retry      time.Duration `toml:"retry" min:"0 or 1ms"` // 0 = no hint
	RetryToAll bool          `toml:"retry_to_all"`
	Done       []string      `toml:"done"`        // data of a last event
	DoneEvents []string      `toml:"done_events"` // names of a last event
	IDs        string        `toml:"ids" oneof:"auto,edge,upstream,off"`
	Takeover   string        `toml:"takeover" oneof:",last-event-id"`
	Bind       []string      `toml:"bind"` // cookies that say whose a stream is

	Slow string `toml:"slow" oneof:"log,cut"` // what becomes of a follower that fell off the ring
	Gap  string `toml:"gap" oneof:"say,cut"`  // what is answered when a position is gone

	LogLength    int           `toml:"log_length" min:"1"` // frames a stream
	LogTTL       time.Duration `toml:"log_ttl" min:"1s"`   // after the last frame
	RingEvents   int           `toml:"ring_events" min:"1"`
	RingBytes    Size          `toml:"ring_bytes" min:"1KiB"`
	WriteTimeout time.Duration `toml:"write_timeout" min:"0 or 10ms"` // 0 = no limit
	MaxAge       time.Duration `toml:"max_age" min:"0 or 1s"`         // 0 = no limit
}

// Limits is the table [limits]. 0 means no limit, where it is
// allowed.
type Limits struct {
	Connections             int  `toml:"connections"`
	ConnectionsPerIP        int  `toml:"connections_per_ip"`
	ConnectionsPerPrincipal int  `toml:"connections_per_principal"`
	RequestsPerIP           int  `toml:"requests_per_ip"`               // a second
	RequestsPerPrincipal    int  `toml:"requests_per_principal"`        // a second
	MessagesPerPrincipal    int  `toml:"messages_per_principal"`        // published, a second
	TopicsPerConnection     int  `toml:"topics_per_connection" min:"1"` // followed
	EventSize               Size `toml:"event_size" min:"1KiB"`
	BodySize                Size `toml:"body_size"`
	Memory                  Size `toml:"memory" min:"1MiB" reload:"restart"` // rings and logs in memory, all together
}

// Log is the table [log].
type Log struct {
	Level    string `toml:"level" oneof:"debug,info,warn,error"`
	Format   string `toml:"format" oneof:"json,console" reload:"restart"`
	Sampling bool   `toml:"sampling" reload:"restart"` // of messages that repeat within a second
}

// Default holds every default but those of an upstream and a route, of which
// it has none: see DefaultUpstream and DefaultRoute.
func Default() Config {
	return Config{
		Node: Node{
			DrainTimeout: 30 * time.Second,
		},
		Listen: Listen{
			Public:            ":8080",
			Internal:          "127.0.0.1:8089",
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeader:         64 * KiB,
		},
		Cluster: Cluster{
			Prefix:     "ssegate",
			Heartbeat:  10 * time.Second,
			DeadAfter:  30 * time.Second,
			CheckEvery: 5 * time.Second,
			TailCheck:  2 * time.Second,
		},
		Push: defaultPush(),
		Auth: defaultAuth(),
		CORS: CORS{MaxAge: time.Hour},
		Limits: Limits{
			TopicsPerConnection: 32,
			EventSize:           2 * MiB,
			Memory:              256 * MiB,
		},
		Log: Log{
			Level:    "info",
			Format:   "json",
			Sampling: true,
		},
	}
}

// DefaultUpstream is an upstream without name and targets.
func DefaultUpstream() Upstream {
	return Upstream{
		Balance:        "round-robin",
		ConnectTimeout: 5 * time.Second,
		HeaderTimeout:  5 * time.Minute, // a model may think for minutes before it answers
		MaxFails:       3,
		FailFor:        10 * time.Second,
		HealthEvery:    10 * time.Second,
		HealthTimeout:  2 * time.Second,
		HostHeader:     "client",
	}
}

// DefaultRoute is the route of everything, without an upstream.
func DefaultRoute() Route {
	return Route{
		Path:              "/",
		Auth:              "pass",
		Attach:            "id",
		AttachFor:         10 * time.Second,
		AttachUnavailable: "run",
		AttachBodyLimit:   1 * MiB,
		OnDisconnect:      "detach",
		DetachFor:         30 * time.Second,
		Heartbeat:         15 * time.Second,
		HeartbeatStyle:    "line",
		HeartbeatData:     "heartbeat",
		Retry:             2 * time.Second,
		Done:              []string{"[DONE]"},
		IDs:               "auto",
		Slow:              "log",
		Gap:               "say",
		LogLength:         10_000,
		LogTTL:            10 * time.Minute,
		RingEvents:        1024,
		RingBytes:         4 * MiB,
		WriteTimeout:      time.Minute,
	}
}
