package gate

import (
	"fmt"
	"reflect"
	"strings"
)

// Diff names what differs between two configurations: keys that a reload
// brings into effect (for what begins after it; streams in flight keep the
// settings that they began with), and keys that need a restart. Upstreams and
// routes are called by their names, not by their place, so that one more at
// the top does not look like a change of all: "upstream chat targets",
// "route /v1 heartbeat", "route /v2 added"; API keys too.
func Diff(old, new Config) (live, restart []string) {
	was, is := reflect.ValueOf(old), reflect.ValueOf(new)
	for f, table := range is.Fields() {
		name := f.Tag.Get("toml")
		if table.Kind() == reflect.Slice {
			continue
		}
		before := was.FieldByIndex(f.Index)
		for sub, value := range table.Fields() {
			if same(before.FieldByIndex(sub.Index), value) {
				continue
			}
			key := join(name, sub.Tag.Get("toml"))
			if table := sub.Tag.Get("present"); table != "" {
				key = table
			}
			if listOfTables(value.Type()) {
				continue
			}
			if f.Tag.Get("reload") == "restart" || sub.Tag.Get("reload") == "restart" {
				restart = append(restart, key)
			} else {
				live = append(live, key)
			}
		}
	}
	live = diffList(live, "upstream", old.Upstream, new.Upstream, func(u Upstream) string { return u.Name })
	live = diffList(live, "route", old.Route, new.Route, Route.Label)
	live = diffList(live, "auth.key", old.Auth.Key, new.Auth.Key, func(k AuthKey) string { return k.Name })
	return live, restart
}

// Label is what a route is called in logs and metrics: its Name, or what it
// matches, such as "api.example.com/v1 GET,POST".
func (r Route) Label() string {
	if r.Name != "" {
		return r.Name
	}
	label := r.Host + r.Path
	if len(r.Methods) > 0 {
		label += " " + strings.Join(r.Methods, ",")
	}
	return label
}

func diffList[T any](changes []string, kind string, old, new []T, label func(T) string) []string {
	was := make(map[string]T, len(old))
	for _, t := range old {
		was[label(t)] = t
	}
	for _, t := range new {
		name := fmt.Sprintf("%s %s", kind, label(t))
		before, ok := was[label(t)]
		if !ok {
			changes = append(changes, name+" added")
			continue
		}
		delete(was, label(t))
		a, b := reflect.ValueOf(before), reflect.ValueOf(t)
		for f, v := range b.Fields() {
			if !same(a.FieldByIndex(f.Index), v) {
				changes = append(changes, name+" "+f.Tag.Get("toml"))
			}
		}
	}
	for _, t := range old {
		if _, gone := was[label(t)]; gone {
			changes = append(changes, fmt.Sprintf("%s %s removed", kind, label(t)))
		}
	}
	return changes
}

// same compares two values of a key. No list and an empty one are the same.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
