package gate

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
)

// String is the whole configuration as a file would have it, with every key;
// passwords are not shown.
func (c Config) String() string {
	var b strings.Builder
	for f, v := range reflect.ValueOf(c).Fields() {
		name := f.Tag.Get("toml")
		if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				writeTable(&b, "[["+name+"]]", v.Index(i))
			}
			continue
		}
		if absent(v) {
			continue // to name it would switch it on
		}
		writeTable(&b, "["+name+"]", v)
		for key, list := range fields(v) {
			for i := range listed(list) {
				writeTable(&b, "[["+join(name, key)+"]]", list.Index(i))
			}
		}
	}
	return b.String()
}

// absent reports whether a table that need not be there is not.
func absent(table reflect.Value) bool {
	for f, v := range table.Fields() {
		if f.Tag.Get("present") != "" {
			return !v.Bool()
		}
	}
	return false
}

// listed is the length of a list of tables, 0 for everything else.
func listed(v reflect.Value) int {
	if !listOfTables(v.Type()) {
		return 0
	}
	return v.Len()
}

func writeTable(b *strings.Builder, head string, table reflect.Value) {
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	b.WriteString(head + "\n")
	for key, v := range fields(table) {
		if listOfTables(v.Type()) {
			continue
		}
		b.WriteString(key + " = " + tomlValue(v) + "\n")
	}
}

// tomlValue writes a value as it stands in a file, a secret redacted.
func tomlValue(v reflect.Value) string {
	switch v := v.Interface().(type) {
	case time.Duration:
		return strconv.Quote(brief(v))
	case Size:
		return strconv.Quote(v.String())
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = tomlText(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case string:
		return tomlText(v)
	case SecretURL:
		return tomlText(v.String())
	case SecretText:
		return tomlText(v.String())
	default:
		return fmt.Sprint(v)
	}
}

// tomlText quotes a text as TOML does, which knows fewer escapes than Go.
func tomlText(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// MarshalLogObject logs what differs from the defaults; passwords are not
// shown.
func (c Config) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	def := reflect.ValueOf(Default())
	for f, v := range reflect.ValueOf(c).Fields() {
		name := f.Tag.Get("toml")
		switch v.Kind() {
		case reflect.Struct:
			logTable(enc, name, v, def.FieldByIndex(f.Index))
			for key, list := range fields(v) {
				for i := range listed(list) {
					logTable(enc, item(join(name, key), i+1), list.Index(i), reflect.ValueOf(DefaultAuthKey()))
				}
			}
		case reflect.Slice:
			for i := range v.Len() {
				base := reflect.ValueOf(DefaultUpstream())
				if name == "route" {
					base = reflect.ValueOf(DefaultRoute())
				}
				logTable(enc, item(name, i+1), v.Index(i), base)
			}
		}
	}
	return nil
}

func logTable(enc zapcore.ObjectEncoder, name string, table, base reflect.Value) {
	for f, v := range table.Fields() {
		key := join(name, f.Tag.Get("toml"))
		switch {
		case same(v, base.FieldByIndex(f.Index)) || listOfTables(v.Type()):
		case f.Tag.Get("present") != "":
			enc.AddString(name, "on")
		default:
			enc.AddString(key, strings.Trim(tomlValue(v), `"`))
		}
	}
}
