// Package registrytest is what every registry driver must keep, as tests.
package registrytest

import (
	"context"
	"slices"
	"testing"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

// World is one empty registry, seen by two nodes.
type World struct {
	// A and B are handles on the same registry, as two nodes have them. A
	// driver without handles of its own gives the same one twice.
	A, B registry.Registry
	// Pass lets at least d go by for the registry: it moves a clock, or waits.
	Pass func(d time.Duration)
}

// What must end in a test ends soon; what must not, lasts. No test wants
// something that ends soon to be there still.
const (
	soon = 60 * time.Millisecond
	long = time.Hour
)

// Run runs the suite. Each test opens a world of its own.
func Run(t *testing.T, open func(t *testing.T) World) {
	for _, c := range []struct {
		name string
		test func(*testing.T, World)
	}{
		{"LeaseLapses", leaseLapses},
		{"ListSorted", listSorted},
		{"NodeRoundTrip", nodeRoundTrip},
		{"Leave", leave},
		{"SweepAfterDeath", sweepAfterDeath},
		{"SweepSparesWhoCameBack", sweepSparesWhoCameBack},
		{"LeadOneAtATime", leadOneAtATime},
		{"LeadRace", leadRace},
		{"PutAndGet", putAndGet},
		{"PutFenced", putFenced},
		{"PutMany", putMany},
		{"RecordEnds", recordEnds},
		{"TouchPutsOff", touchPutsOff},
		{"Claim", claim},
		{"ClaimRace", claimRace},
		{"Interest", interest},
		{"InterestEnds", interestEnds},
		{"InterestOfTheDead", interestOfTheDead},
		{"TouchPutsOffInterest", touchPutsOffInterest},
		{"Elect", elect},
		{"ElectRace", electRace},
		{"ElectDeadOwner", electDeadOwner},
		{"ElectDeadOwnerRace", electDeadOwnerRace},
		{"KeyEnds", keyEnds},
		{"ExtendOnlyByHolder", extendOnlyByHolder},
		{"ReleaseOnlyByHolder", releaseOnlyByHolder},
		{"Prints", prints},
		{"PrintsEnd", printsEnd},
		{"Connections", connections},
		{"ConnectionsGoWithTheLease", connectionsGoWithTheLease},
		{"Notes", notes},
		{"NotesEnd", notesEnd},
		{"TakeNoteRace", takeNoteRace},
		{"Gathered", gathered},
		{"GatheredEnd", gatheredEnd},
		{"GatherRace", gatherRace},
		{"Due", due},
		{"DueComesBack", dueComesBack},
		{"DueMany", dueMany},
		{"TakeDueRace", takeDueRace},
		{"DoneContext", doneContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// beat renews a lease and says whether it had lapsed.
func beat(t *testing.T, r registry.Nodes, id string, ttl time.Duration) (lapsed bool) {
	t.Helper()
	lapsed, err := r.Beat(t.Context(), registry.Node{ID: id, Started: time.Unix(1, 0).UTC()}, ttl)
	if err != nil {
		t.Fatalf("Beat(%s): %v", id, err)
	}
	return lapsed
}

// ids are the ids of the live nodes.
func ids(t *testing.T, r registry.Nodes) []string {
	t.Helper()
	list, err := r.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	var ids []string
	for _, n := range list {
		ids = append(ids, n.ID)
	}
	return ids
}

// want fails unless both hold the same, in order; nil and empty are the same.
func want[T comparable](t *testing.T, what string, got []T, want ...T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// put stores one record.
func put(t *testing.T, r registry.Streams, rec registry.Record, ttl time.Duration) error {
	t.Helper()
	switch errs := r.Put(t.Context(), []registry.Record{rec}, ttl); {
	case errs == nil:
		return nil
	case len(errs) != 1:
		t.Fatalf("Put of one record: %d errors", len(errs))
		return nil
	default:
		return errs[0]
	}
}

func rec(id sse.StreamID, owner string, epoch uint64) registry.Record {
	return registry.Record{Stream: id, Owner: owner, Epoch: epoch, Route: "/", Started: time.Unix(1, 0).UTC()}
}

// doneContext: nothing is said to have been done with a ctx that is done.
func doneContext(t *testing.T, w World) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	id := sse.NewStreamID()
	for name, err := range map[string]error{
		"Beat":     second(w.A.Beat(ctx, registry.Node{ID: "a"}, long)),
		"List":     second(w.A.List(ctx)),
		"Put":      first(w.A.Put(ctx, []registry.Record{rec(id, "a", 1)}, long)),
		"Get":      second(w.A.Get(ctx, id)),
		"Claim":    w.A.Claim(ctx, rec(id, "a", 2), 1, long),
		"Follow":   w.A.Follow(ctx, id, "a", long),
		"Sweep":    second(w.A.Sweep(ctx)),
		"Conns":    second(w.A.Conns(ctx)),
		"PutConns": w.A.PutConns(ctx, "a", []*registry.Connection{{ID: "1"}}),
		"AddPrint": w.A.AddPrint(ctx, "p", id, long),
		"PutNote":  w.A.PutNote(ctx, "n", nil, long),
		"GetNote":  second(w.A.GetNote(ctx, "n")),
		"TakeNote": second(w.A.TakeNote(ctx, "n")),
		"Gather":   w.A.Gather(ctx, "g", []byte{1}, long),
		"Gathered": second(w.A.Gathered(ctx, "g")),
		"PutDue":   w.A.PutDue(ctx, time.Now(), [][]byte{{1}}),
		"TakeDue":  second(w.A.TakeDue(ctx, time.Now(), time.Now().Add(long), 1)),
		"DropDue":  w.A.DropDue(ctx, [][]byte{{1}}),
	} {
		if err == nil || isSentinel(err) {
			t.Errorf("%s with a ctx that is done: %v", name, err)
		}
	}
	want(t, "nodes", ids(t, w.A))
}

func second[T any](_ T, err error) error { return err }

func first(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}
