package gate

import "errors"

// Load reads the configuration: flags over environment over file over
// defaults. path is the TOML file ("" = none), env is as os.Environ gives it,
// flags maps keys such as "cluster.redis" (and "upstream", a list of target
// URLs) to their text. The error is a *ConfigError that holds all mistakes.
func Load(path string, env []string, flags map[string]string) (Config, []Notice, error) {
	return Config{}, nil, errors.New("gate: not yet")
}

// Problem is one mistake in the configuration.
type Problem struct {
	Key   string // such as route[2].heartbeat_style; the first route is route[1]
	Where string // file and line, variable or flag it comes from
	Text  string // what is wrong and what to write instead
}

// Notice is something that Load let pass but that the operator should know.
type Notice Problem

// ConfigError holds all mistakes of a configuration.
type ConfigError struct {
	Problems []Problem
}

func (e *ConfigError) Error() string { return "" }
