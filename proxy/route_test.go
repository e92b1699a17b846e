package proxy

import (
	"slices"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	var routes []*Route
	for _, spec := range []string{
		"root /", "api /api", "apiv2 /api/v2/", "posts /api POST,PUT", "files /files GET",
		"host a.example.com/", "wild *.example.com/", "deep *.b.example.com/", "hostapi a.example.com/api",
		"odd /ä b", "second /api", "escaped /caf%C3%A9", "longer /aaa/b", "shorter /%61%61%61", "slash /s%2Ft", "twice /t%2541",
	} {
		name, rest, _ := strings.Cut(spec, " ")
		r := &Route{Name: name}
		slash := strings.IndexByte(rest, '/')
		r.Host, r.Path = rest[:slash], rest[slash:]
		if path, methods, ok := strings.Cut(r.Path, " "); ok && name != "odd" {
			r.Path, r.Methods = path, strings.Split(methods, ",")
		}
		routes = append(routes, r)
	}
	table := NewTable(routes)
	f := func(method, host, path, want string) {
		t.Helper()
		got := "none"
		if r, allow := table.Match(host, path, method); r != nil {
			got = r.Name
		} else if allow != "" {
			got = "allow " + allow
		}
		if got != want {
			t.Errorf("%s %s%s: %s, want %s", method, host, path, got, want)
		}
	}
	f("GET", "h", "/", "root")
	f("GET", "h", "", "none")
	f("OPTIONS", "h", "*", "root")
	f("GET", "h", "/api", "api")
	f("GET", "h", "/api/", "api")
	f("GET", "h", "/api/x", "api")
	f("GET", "h", "/apix", "root")
	f("GET", "h", "/api/v2", "api")
	f("GET", "h", "/api/v2/", "apiv2")
	f("GET", "h", "/api/v2/x", "apiv2")
	f("POST", "h", "/api/x", "posts")
	f("PUT", "h", "/api", "posts")
	f("POST", "h", "/api/v2/x", "apiv2")
	f("post", "h", "/api/x", "api") // methods are case-sensitive
	f("GET", "h", "/files/x", "files")
	f("POST", "h", "/files/x", "root")
	// Hosts.
	f("GET", "a.example.com", "/x", "host")
	f("GET", "A.Example.COM:8080", "/x", "host")
	f("GET", "a.example.com.", "/x", "host")
	f("GET", "c.example.com", "/x", "wild")
	f("GET", "d.c.example.com", "/x", "wild")
	f("GET", "c.b.example.com:1", "/x", "deep")
	f("GET", "example.com", "/x", "root")
	f("GET", ".example.com", "/x", "root")
	f("GET", "xexample.com", "/x", "root")
	f("GET", "[::1]:8080", "/x", "root")
	// The longest path wins over a host, a host over none.
	f("GET", "a.example.com", "/api/v2/x", "apiv2")
	f("GET", "a.example.com", "/files/x", "files")
	f("GET", "a.example.com", "/api/x", "hostapi")
	// However the path is spelled.
	f("GET", "h", "/%61pi/x", "api")
	f("GET", "h", "/x/../api", "api")
	f("GET", "h", "/x/%2e%2E/api", "api")
	f("GET", "h", "//api", "api")
	f("GET", "h", "/./api//v2///x", "apiv2")
	f("GET", "h", "/../../api", "api")
	f("GET", "h", "/api/../x", "root")
	f("GET", "h", "/api/..", "root")
	f("GET", "h", "/api%2Fv2/x", "root")
	f("GET", "h", "/api/v2%2f..", "api")
	f("GET", "h", "/api#/../x", "api")
	f("GET", "h", "/%zz", "root")
	f("GET", "h", "/%", "root")
	f("GET", "h", "/%C3%A4 b/c", "odd")
	// However the route spells it.
	f("GET", "h", "/caf%C3%A9", "escaped")
	f("GET", "h", "/caf%c3%a9/x", "escaped")
	f("GET", "h", "/café/x", "escaped")
	f("GET", "h", "/caf%C3%A9s", "root")
	f("GET", "h", "/caf%25C3%25A9", "root")
	f("GET", "h", "/aaa/c", "shorter")
	f("GET", "h", "/aaa/b/c", "longer")
	f("GET", "h", "/s%2Ft/x", "slash")
	f("GET", "h", "/%73%2ft", "slash")
	f("GET", "h", "/s/t", "root")
	f("GET", "h", "/t%2541", "twice")
	f("GET", "h", "/tA", "root")
	table = table.with([]*Route{{Name: "more", Path: "/more"}}) // a table made of another decodes no path twice
	f("GET", "h", "/t%2541", "twice")
	f("GET", "h", "/more", "more")

	only := NewTable([]*Route{{Name: "a", Path: "/a", Methods: []string{"PUT", "GET"}}, {Name: "b", Path: "/a", Host: "h", Methods: []string{"POST", "GET"}}})
	if _, allow := only.Match("h", "/a", "DELETE"); allow != "GET, POST, PUT" {
		t.Errorf("allow %q", allow)
	}
	if _, allow := only.Match("other", "/a", "DELETE"); allow != "GET, PUT" {
		t.Errorf("allow %q", allow)
	}
	if r := only.Named("b"); r == nil || r.Host != "h" || only.Named("c") != nil {
		t.Error("Named")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	table := NewTable([]*Route{{Path: "/"}, {Path: "/api", Methods: []string{"GET"}}, {Path: "/", Host: "*.example.com"}})
	if n := testing.AllocsPerRun(100, func() {
		if r, _ := table.Match("a.example.com:80", "/api/v1/users/17", "GET"); r == nil {
			t.Fatal("no route")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A table does not follow the slice that it was made of.
func TestTableIsACopy(t *testing.T) {
	list := []*Route{{Name: "a", Path: "/"}, {Name: "b", Path: "/b"}}
	table := NewTable(list)
	slices.Reverse(list)
	list[0] = nil
	if r, _ := table.Match("h", "/b", "GET"); r.Name != "b" {
		t.Errorf("%+v", r)
	}
}
