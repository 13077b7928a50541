// Command ledger-audit audits a ledger with Go's own note and tlog packages, those of the Go checksum database. It
// shares no code with the ledger's writer, in no language.
//
//	ledger-audit log VKEY DIR [KEPT]        every entry, every tile; KEPT: a checkpoint from before, to be extended
//	ledger-audit proof VKEY PROOF ENTRY     a .tlog-proof file, and the entry that it is said to prove
//
// It prints one line: "ok" and what was shown (exit 0), or "refused" and why (exit 1).
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height, width = 8, 256

// folder reads the tiles of C2SP tlog-tiles, whose paths have no height, and a full tile where a partial one is gone.
type folder string

func (f folder) Height() int                     { return height }
func (f folder) SaveTiles([]tlog.Tile, [][]byte) {}

func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range tiles {
		data, err := f.read(tile)
		if err == nil && len(data) < tile.W*tlog.HashSize {
			err = fmt.Errorf("%s is cut short", f.path(tile))
		}
		if err != nil {
			return nil, err
		}
		read = append(read, data[:tile.W*tlog.HashSize])
	}
	return read, nil
}

func (f folder) read(tile tlog.Tile) ([]byte, error) {
	data, err := os.ReadFile(f.path(tile))
	if errors.Is(err, os.ErrNotExist) && tile.W < width {
		tile.W = width
		return os.ReadFile(f.path(tile))
	}
	return data, err
}

func (f folder) path(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), "tile/8/")
	return filepath.Join(string(f), "tile", strings.Replace(path, "data/", "entries/", 1))
}

// open verifies a checkpoint: the signature, then its three lines, then the origin, which is the key's name.
func open(data []byte, key note.Verifier) (tree tlog.Tree, err error) {
	signed, err := note.Open(data, note.VerifierList(key))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(signed.Text, "\n")
	if len(lines) != 4 || lines[0] != key.Name() {
		return tree, fmt.Errorf("not a checkpoint of %s", key.Name())
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func audit(key note.Verifier, files folder, kept []byte) (string, error) {
	data, err := os.ReadFile(filepath.Join(string(files), "checkpoint"))
	if err != nil {
		return "", err
	}
	tree, err := open(data, key)
	if err != nil {
		return "", err
	}
	hashes := tlog.TileHashReader(tree, files)
	for first := int64(0); first < tree.N; first += width {
		if err := entries(files, hashes, first, int(min(width, tree.N-first))); err != nil {
			return "", err
		}
	}
	shown := fmt.Sprintf("%d entries of %s", tree.N, key.Name())
	if kept == nil {
		return shown, nil
	}
	old, err := open(kept, key)
	if err != nil {
		return "", err
	}
	if old.N > tree.N {
		return "", fmt.Errorf("%d entries, and there were %d", tree.N, old.N)
	}
	proof, err := tlog.ProveTree(tree.N, old.N, hashes)
	if err == nil {
		err = tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash)
	}
	return fmt.Sprintf("%s, which begin with all of the %d", shown, old.N), err
}

// entries hashes one bundle of entries and compares them with the leaves, which hashes has proven.
func entries(files folder, hashes tlog.HashReader, first int64, count int) error {
	tile := tlog.Tile{H: height, L: -1, N: first / width, W: count}
	data, err := files.read(tile)
	if err != nil {
		return err
	}
	var indexes []int64
	var leaves []tlog.Hash
	for at := int64(0); at < int64(count); at++ {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return fmt.Errorf("entry %d is cut short", first+at)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		leaves = append(leaves, tlog.RecordHash(data[2:end]))
		indexes = append(indexes, tlog.StoredHashIndex(0, first+at))
		data = data[end:]
	}
	proven, err := hashes.ReadHashes(indexes)
	if err != nil {
		return err
	}
	for at := range leaves {
		if leaves[at] != proven[at] {
			return fmt.Errorf("entry %d is not the one of the tree", first+int64(at))
		}
	}
	return nil
}

func prove(key note.Verifier, proof, entry []byte) (string, error) {
	head, checkpoint, _ := bytes.Cut(proof, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return "", errors.New("not an offline proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return "", err
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		var hash tlog.Hash
		decoded, err := base64.StdEncoding.DecodeString(line)
		if err != nil || copy(hash[:], decoded) != tlog.HashSize || len(decoded) != tlog.HashSize {
			return "", errors.New("not a hash")
		}
		path = append(path, hash)
	}
	tree, err := open(checkpoint, key)
	if err == nil {
		err = tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(entry))
	}
	return fmt.Sprintf("entry %d of %d of %s", index, tree.N, key.Name()), err
}

func run(arguments []string) (string, error) {
	if len(arguments) < 3 || len(arguments) > 4 {
		return "", errors.New("usage: ledger-audit log VKEY DIR [KEPT] | proof VKEY PROOF ENTRY")
	}
	key, err := note.NewVerifier(arguments[1])
	if err != nil {
		return "", err
	}
	var files [][]byte
	for _, name := range arguments[map[string]int{"log": 3, "proof": 2}[arguments[0]]:] {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		files = append(files, data)
	}
	switch {
	case arguments[0] == "log":
		return audit(key, folder(arguments[2]), append(files, nil)[0])
	case arguments[0] == "proof" && len(files) == 2:
		return prove(key, files[0], files[1])
	}
	return "", errors.New("neither log nor proof")
}

func main() {
	shown, err := run(os.Args[1:])
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	fmt.Println("ok:", shown)
}
