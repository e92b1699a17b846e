package gate

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one mistake in the configuration.
type Problem struct {
	Key   string // such as route[2].heartbeat_style; the first route is route[1]
	Where string // file and line, variable or flag it comes from; may be empty
	Text  string // what is wrong and what to write instead

	line int // in the file; orders problems
}

// String is the problem on one line.
func (p Problem) String() string {
	parts := slices.DeleteFunc([]string{p.Where, p.Key, p.Text}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// Notice is something that Load let pass but that the operator should know.
type Notice Problem

// String is the notice on one line.
func (n Notice) String() string { return Problem(n).String() }

// ConfigError holds all mistakes of a configuration, those of the file in the
// order of their lines. No text in it shows a password.
type ConfigError struct {
	Problems []Problem // at least one
}

// Error has a line for each mistake, the first one says how many.
func (e *ConfigError) Error() string {
	var b strings.Builder
	if n := len(e.Problems); n == 1 {
		b.WriteString("one mistake in the configuration:")
	} else {
		fmt.Fprintf(&b, "%d mistakes in the configuration:", n)
	}
	for _, p := range e.Problems {
		b.WriteString("\n  " + strings.ReplaceAll(p.String(), "\n", "\n  "))
	}
	return b.String()
}

// loader is one run of Load. It gathers what is wrong, each key's first mistake
// only: what follows from it would be noise.
type loader struct {
	file     string
	env      []string
	lines    map[string]int    // key → line in the file
	from     map[string]string // key → variable or flag that set it last
	bad      map[string]bool
	problems []Problem
	notices  []Notice
}

func (l *loader) problem(key, format string, args ...any) {
	if l.bad[key] {
		return
	}
	l.bad[key] = true
	where, line := l.where(key)
	l.problems = append(l.problems, Problem{key, where, fmt.Sprintf(format, args...), line})
}

func (l *loader) notice(key, format string, args ...any) {
	where, line := l.where(key)
	l.notices = append(l.notices, Notice{key, where, fmt.Sprintf(format, args...), line})
}

// given reports whether somebody has set the key, be it to its default.
func (l *loader) given(key string) bool { return l.lines[key] > 0 || l.from[key] != "" }

// where says where a key was set, or else the closest table around it. A list
// that a variable or flag has set is theirs with all its items.
func (l *loader) where(key string) (string, int) {
	for k := key; k != ""; k = around(k) {
		if from := l.from[k]; from != "" {
			return from, 0
		}
	}
	for k := key; k != ""; k = around(k) {
		if line := l.lines[k]; line > 0 {
			return l.file + ":" + strconv.Itoa(line), line
		}
	}
	return l.file, 0
}

// around is what a key is in.
func around(key string) string { return key[:max(strings.LastIndexAny(key, ".["), 0)] }

// sorted returns the error, or nil, and the notices.
func (l *loader) sorted() ([]Notice, error) {
	slices.SortStableFunc(l.notices, func(a, b Notice) int { return cmp.Compare(a.line, b.line) })
	if len(l.problems) == 0 {
		return l.notices, nil
	}
	slices.SortStableFunc(l.problems, func(a, b Problem) int { return cmp.Compare(a.line, b.line) })
	return l.notices, &ConfigError{Problems: l.problems}
}

// nearest returns the word that s was probably meant to be, or "".
func nearest(s string, words []string) string {
	best, least := "", max(1, len(s)/3)+1
	for _, w := range words {
		if d := distance(strings.ToLower(s), w); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
		for j := 1; j <= len(b); j++ {
			if i == 0 {
				rows[0][j] = j
				continue
			}
			swap := 0
			if a[i-1] != b[j-1] {
				swap = 1
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+swap)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// shown quotes a value for an error: shortened, and without what may be a
// password.
func shown(s string) string {
	if scheme, rest, ok := strings.Cut(s, "//"); ok {
		end := strings.LastIndexByte(rest, '@')
		if end < 0 && !plainHost.MatchString(rest) {
			end = len(rest)
		}
		if end >= 0 {
			s = scheme + "//" + hidden + rest[end:]
		}
	}
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}

// plainHost matches what stands behind the // of a URL if it begins with a
// host and nothing that could be a password of which the @ was forgotten.
var plainHost = regexp.MustCompile(`^([^:/?#]+|\[[0-9a-fA-F:.]+\])?(:[0-9]*)?([/?#]|$)`)
