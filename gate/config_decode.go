package gate

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The decoder of the toml package stops at the first value that does not fit,
// so it only reads the text into maps, and what is here puts those into the
// struct and goes on.

// fields yields the keys of a table and their values.
func fields(table reflect.Value) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		for f, v := range table.Fields() {
			if name := f.Tag.Get("toml"); name != "-" && !yield(name, v) {
				return
			}
		}
	}
}

// listOfTables reports whether a key of this type is a list of tables.
func listOfTables(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct
}

// table puts what the file says of a table into dst, a struct.
func (l *loader) table(dst reflect.Value, from map[string]any, key string) {
	known := maps.Collect(fields(dst))
	names := slices.SortedFunc(maps.Keys(from), func(a, b string) int {
		return cmp.Or(cmp.Compare(l.lines[join(key, a)], l.lines[join(key, b)]), strings.Compare(a, b))
	})
	for _, name := range names {
		if v, ok := known[name]; ok {
			l.value(v, from[name], join(key, name))
		} else {
			l.unknown(key, name, slices.Sorted(maps.Keys(known)))
		}
	}
}

// unknown says what was probably meant by a key that is none.
func (l *loader) unknown(table, name string, siblings []string) {
	key := join(table, name)
	switch tables := tablesWith(name); {
	case len(tables) > 0:
		l.problem(key, "no such key here: %s belongs in %s", name, strings.Join(tables, " or "))
	case nearest(name, siblings) != "":
		l.problem(key, "no such key: did you mean %s?", nearest(name, siblings))
	case table == "":
		l.problem(key, "no such table: there are %s", strings.Join(siblings, ", "))
	default:
		l.problem(key, "no such key: there are %s", strings.Join(siblings, ", "))
	}
}

// tablesWith finds the tables that have a key of that name.
func tablesWith(name string) (found []string) {
	var look func(t reflect.Type, form, key string)
	look = func(t reflect.Type, form, key string) {
		for f := range t.Fields() {
			sub := f.Tag.Get("toml")
			switch {
			case sub == name && key != "":
				found = append(found, fmt.Sprintf(form, key))
			case listOfTables(f.Type):
				look(f.Type.Elem(), "[[%s]]", strings.TrimPrefix(key+"."+sub, "."))
			case f.Type.Kind() == reflect.Struct:
				look(f.Type, "[%s]", sub)
			}
		}
	}
	look(reflect.TypeFor[Config](), "", "")
	return found
}

// value puts one value of the file into dst.
func (l *loader) value(dst reflect.Value, from any, key string) {
	switch dst := dst.Addr().Interface().(type) {
	case *[]Upstream:
		list(l, dst, from, key, DefaultUpstream)
	case *[]Route:
		list(l, dst, from, key, DefaultRoute)
	case *[]AuthKey:
		list(l, dst, from, key, DefaultAuthKey)
	case *[]string:
		l.texts(dst, from, key)
	case *time.Duration:
		l.duration(dst, from, key)
	case *Size:
		l.size(dst, from, key)
	case *SecretURL:
		if s, ok := from.(string); ok {
			*dst = SecretURL(s)
			return
		}
		l.problem(key, `must be a URL in quotes`)
	case *SecretText:
		if s, ok := from.(string); ok {
			*dst = SecretText(s)
			return
		}
		l.problem(key, `must be a text, in quotes`)
	case *string:
		switch v := from.(type) {
		case string:
			*dst = v
		case int64:
			l.problem(key, `must be a text: write "%d", in quotes`, v)
		default:
			l.problem(key, "must be a text, in quotes")
		}
	case *bool:
		b, ok := from.(bool)
		if !ok {
			l.problem(key, "must be true or false, without quotes")
			return
		}
		*dst = b
	case *int:
		n, ok := from.(int64)
		if !ok {
			l.problem(key, "must be a whole number, without quotes")
			return
		}
		*dst = int(max(math.MinInt, min(n, math.MaxInt))) // checkTags knows what may be
	default: // a struct
		tables, ok := from.(map[string]any)
		if !ok {
			l.problem(key, "must be a table: write [%s] and its keys below", key)
			return
		}
		l.table(reflect.ValueOf(dst).Elem(), tables, key)
	}
}

// list puts an array of tables into dst, each over its own defaults.
func list[T any](l *loader, dst *[]T, from any, key string, start func() T) {
	var tables []map[string]any
	switch v := from.(type) {
	case []map[string]any:
		tables = v
	case []any:
		for _, t := range v {
			m, ok := t.(map[string]any)
			if !ok {
				l.problem(key, "must be tables: write [[%s]] and the keys below, once for each", key)
				return
			}
			tables = append(tables, m)
		}
	default:
		l.problem(key, "must be a list of tables: write [[%s]], with two brackets", key)
		return
	}
	for i, t := range tables {
		one := start()
		l.table(reflect.ValueOf(&one).Elem(), t, item(key, i+1))
		*dst = append(*dst, one)
	}
}

func (l *loader) texts(dst *[]string, from any, key string) {
	items, ok := from.([]any)
	if !ok {
		if s, isText := from.(string); isText {
			l.problem(key, "must be a list: write [%s]", shown(s))
		} else {
			l.problem(key, `must be a list of texts: ["…", "…"]`)
		}
		return
	}
	*dst = nil // an empty list and none are the same
	for i, it := range items {
		s, ok := it.(string)
		if !ok {
			l.problem(item(key, i+1), "must be a text, in quotes")
			continue
		}
		*dst = append(*dst, s)
	}
}

func (l *loader) duration(dst *time.Duration, from any, key string) {
	switch v := from.(type) {
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			l.problem(key, `%s is no duration: write a number and its unit, such as "500ms", "15s" or "2m"`, shown(v))
			return
		}
		*dst = d
	case int64:
		if v != 0 {
			l.problem(key, `a duration needs its unit: write "%ds" for seconds or "%dms" for milliseconds`, v, v)
			return
		}
		*dst = 0
	default:
		l.problem(key, `must be a duration in quotes, such as "15s"`)
	}
}

func (l *loader) size(dst *Size, from any, key string) {
	switch v := from.(type) {
	case string:
		size, err := ParseSize(v)
		if err != nil {
			l.problem(key, "%s is %v", shown(v), err)
			return
		}
		*dst = size
	case int64:
		*dst = Size(v)
	default:
		l.problem(key, `must be a number of bytes, or a size in quotes such as "64KiB"`)
	}
}

// text puts the text of a variable or flag into dst. What the file said of
// that key, right or wrong, no longer counts for the checks to come.
func (l *loader) text(dst reflect.Value, text, key, from string) {
	delete(l.bad, key)
	l.from[key] = from
	switch dst.Interface().(type) {
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			l.problem(key, "must be true or false, not %s", shown(text))
			return
		}
		dst.SetBool(b)
	case int:
		n, err := strconv.ParseInt(text, 10, strconv.IntSize)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			l.problem(key, "must be a whole number, not %s", shown(text))
			return
		}
		dst.SetInt(n) // the largest or the least where it is beyond them
	case []string:
		dst.Set(reflect.ValueOf(splitList(text)))
	case time.Duration:
		var v any = text
		if text == "0" {
			v = int64(0)
		}
		l.value(dst, v, key)
	default:
		l.value(dst, text, key)
	}
}

// splitList reads a list as variables and flags have it.
func splitList(text string) (items []string) {
	for s := range strings.SplitSeq(text, ",") {
		if s = strings.TrimSpace(s); s != "" {
			items = append(items, s)
		}
	}
	return items
}

func lower(words iter.Seq[string]) []string {
	var list []string
	for w := range words {
		list = append(list, strings.ToLower(w))
	}
	return slices.Sorted(slices.Values(list))
}
