package load

import "time"

// Plan is one piece of work, as the conductor tells it.
type Plan struct {
	Kind Kind
	// Clients is how many there are at the same time. Streams is how many they
	// ask for, one after another, where that is more (Kind Short).
	Clients, Streams int
	// Size is that of an event's data in bytes, at least MinSize.
	Size int
	// Every is the time between two writes of the service to one stream, or
	// between two publishes of one publisher; 0: as fast as they are taken.
	Every time.Duration
	// Batch is how many events are in one such write or publish.
	Batch int
	// Events is how many each stream has, or how many are published in all;
	// 0: as many as fit into Lasts.
	Events int
	// Warm is how long it runs before Lasts begins.
	Warm, Lasts time.Duration
	// Publishers is how many publish at the same time (Kind Fan).
	Publishers int
	// Published: events come from publishers, and clients subscribe; else
	// they come from the service, and clients ask for them (Kind Idle).
	Published bool
	// Away is how long cut clients stay away (Kind Resume).
	Away time.Duration
	// Settle is the rest before memory is looked at (Kind Idle).
	Settle time.Duration
	// Patience bounds each wait.
	Patience time.Duration
}

// Kind is what sort of work a plan is.
type Kind string

// The kinds of work. At the marks in brackets the conductor looks at the
// servers.
const (
	// Proxied: each client has a stream of its own from the service. (begin, end)
	Proxied Kind = "proxied"
	// Joined: all clients join one stream from the service. (begin, end)
	Joined Kind = "joined"
	// Short: streams that end soon, each over a connection of its own, a new
	// one for each that has ended. (begin, end)
	Short Kind = "short"
	// Glance: subscriptions that are left as soon as they are answered. (begin, end)
	Glance Kind = "glance"
	// Fan: all clients subscribe to what is published. (begin, end)
	Fan Kind = "fan"
	// Idle: clients that get one event each and then nothing. (empty, full;
	// and used behind the event, where it is published)
	Idle Kind = "idle"
	// Resume: all clients are cut at once and come back elsewhere. (begin, end)
	Resume Kind = "resume"
	// Replay: clients that come to a stream with a past. (begin, end)
	Replay Kind = "replay"
)

// Front is where clients and publishers find the program that is measured.
type Front struct {
	// Clients are the addresses that clients connect to in turn.
	Clients []string
	// Back is where clients come back to (Kind Resume).
	Back string
	// Subscribe is the path of a subscription to what is published, and Past
	// that of one that begins with what was published before.
	Subscribe, Past string
	// Publish takes one event, Batch several.
	Publish, Batch Publish
}

// Publish says how an event is published: POST to Path at Addr, the body being
// Open, then each event's data between Before and After with Between between
// them, then Close.
type Publish struct {
	Addr, Path, Type                    string
	Open, Before, After, Between, Close string
}

// Result is what the load saw.
type Result struct {
	// Events is how many arrived, counted once a client, in Seconds.
	Events  int64
	Seconds float64
	// Late is how long after it was sent an event arrived.
	Late Times
	// First is the time from a client's connecting (or coming back) to its
	// first event, Whole to its last, or the last that it had missed.
	First, Whole Times
	// Times of publishes, from sending to the answer.
	Answer Times

	faults
	Told    int64 // events in which the program itself told of a gap or an error
	Refused int64 // answers that were no 200, or publishes that were no 2xx
	Cut     int64 // connections that ended before the stream did
}

// Sound says whether every client saw every event once and in order.
func (r Result) Sound() bool {
	return !r.any() && r.Told == 0 && r.Refused == 0 && r.Cut == 0
}
