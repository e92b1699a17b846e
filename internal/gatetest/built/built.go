// Package built finds what ./test.sh builds and installs for the tests in the user's cache folder: Consul, a Python
// environment, the JavaScript clients and the Spring example.
//
// What is made from files of this repository has a key of their content in its name, so that a change of a pinned
// version or a line of the example makes the old one unfindable rather than wrongly used. test.sh computes the same key.
package built

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// ErrMissing means that ./test.sh was not run since the files that the thing is made from have changed.
var ErrMissing = errors.New("not built: run ./test.sh, which builds it")

// Dir is the folder where ./test.sh puts what it builds: SSEGATE_TEST_CACHE, or "ssegate" in the user's cache folder.
func Dir() (string, error) {
	if dir := os.Getenv("SSEGATE_TEST_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "ssegate"), err
}

// Root is the repository's folder: the one with go.mod, at or above the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("built: no go.mod above the working directory")
		}
		dir = up
	}
}

// Path is where ./test.sh put what it made from the named files and folders, which are relative to Root: Dir, name, the
// key and ext, as "venv-0123456789ab" or "spring-0123456789ab.jar". The error is ErrMissing when it is not there.
func Path(name, ext string, from ...string) (string, error) {
	dir, err := Dir()
	if err != nil {
		return "", err
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	key, err := key(root, from)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+"-"+key+ext)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s: %w", path, ErrMissing)
	}
	return path, nil
}

// key is the first 12 hexadecimal digits of the SHA-256 of all files in the order of their names.
func key(root string, from []string) (string, error) {
	var files []string
	for _, f := range from {
		err := filepath.WalkDir(filepath.Join(root, f), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	slices.Sort(files)
	sum := sha256.New()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}
