package bus

import (
	"encoding/binary"
	"fmt"

	"ssegate/sse"
)

// Frames in the Body of a message: their number, then for each
//
//	flags   1 byte
//	[kind]  1 byte, unless it is an event
//	[end]   1 byte, unless sse.EndNone
//	[epoch] number, unless that of the frame before
//	[seq]   number, unless one more than that of the frame before
//	[id]    length and bytes, unless nil or that of the frame before
//	[time]  signed number, how much later than the frame before, unless 0
//	[meta]  length and bytes, unless nil
//	block   length and bytes
//
// The frame before the first is the zero frame. So a run of a stream's events
// costs two or three bytes a frame besides the block. The version is the
// parcel's.
const (
	frameKind   = 1 << iota // a kind follows
	frameEnd                // an end follows
	frameEpoch              // an epoch follows
	frameSeq                // a seq follows
	frameID                 // an id follows
	frameSameID             // the id is that of the frame before
	frameTime               // a time follows
	frameMeta               // a meta follows
)

const (
	minFrame   = 2  // bytes: flags and an empty block
	usualFrame = 32 // bytes: few frames are smaller
)

// AppendFrames adds frames to dst, the Body of a message, and returns it.
func AppendFrames(dst []byte, frames []sse.Frame) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(frames)))
	last := &sse.Frame{}
	for i := range frames {
		f := &frames[i]
		var flags byte
		if f.Kind != sse.KindEvent {
			flags |= frameKind
		}
		if f.End != sse.EndNone {
			flags |= frameEnd
		}
		if f.Pos.Epoch != last.Pos.Epoch {
			flags |= frameEpoch
		}
		if f.Pos.Seq != last.Pos.Seq+1 {
			flags |= frameSeq
		}
		switch {
		case f.ID == nil:
		case last.ID != nil && string(f.ID) == string(last.ID):
			flags |= frameSameID
		default:
			flags |= frameID
		}
		if f.Time != last.Time {
			flags |= frameTime
		}
		if f.Meta != nil {
			flags |= frameMeta
		}
		dst = append(dst, flags)
		if flags&frameKind != 0 {
			dst = append(dst, byte(f.Kind))
		}
		if flags&frameEnd != 0 {
			dst = append(dst, byte(f.End))
		}
		if flags&frameEpoch != 0 {
			dst = binary.AppendUvarint(dst, f.Pos.Epoch)
		}
		if flags&frameSeq != 0 {
			dst = binary.AppendUvarint(dst, f.Pos.Seq)
		}
		if flags&frameID != 0 {
			dst = binary.AppendUvarint(dst, uint64(len(f.ID)))
			dst = append(dst, f.ID...)
		}
		if flags&frameTime != 0 {
			dst = binary.AppendVarint(dst, f.Time-last.Time)
		}
		if flags&frameMeta != 0 {
			dst = binary.AppendUvarint(dst, uint64(len(f.Meta)))
			dst = append(dst, f.Meta...)
		}
		dst = binary.AppendUvarint(dst, uint64(len(f.Block)))
		dst = append(dst, f.Block...)
		last = f
	}
	return dst
}

// DecodeFrames reads what AppendFrames wrote, the whole of b. IDs, Metas and
// Blocks share b's bytes; an empty Block is nil, an empty ID or Meta is not. The error is
// ErrGarbled; no frame is returned with it.
func DecodeFrames(b []byte) ([]sse.Frame, error) {
	in := input{b: b}
	n := in.uvarint()
	if in.bad || n > uint64(len(in.b)/minFrame) {
		return nil, fmt.Errorf("%w: number of frames", ErrGarbled)
	}
	if n == 0 && len(in.b) == 0 {
		return nil, nil
	}
	// A frame in memory is far bigger than the least on the wire, so room is
	// made for the usual, and more only as frames are really there.
	frames := make([]sse.Frame, 0, min(n, uint64(1+len(in.b)/usualFrame)))
	var last sse.Frame
	for i := range n {
		flags := in.byte()
		f := sse.Frame{Kind: sse.KindEvent, Pos: sse.Pos{Epoch: last.Pos.Epoch, Seq: last.Pos.Seq + 1}, Time: last.Time}
		if flags&frameKind != 0 {
			f.Kind = sse.Kind(in.byte())
		}
		if flags&frameEnd != 0 {
			f.End = sse.End(in.byte())
		}
		if flags&frameEpoch != 0 {
			f.Pos.Epoch = in.uvarint()
		}
		if flags&frameSeq != 0 {
			f.Pos.Seq = in.uvarint()
		}
		if flags&frameID != 0 {
			if f.ID = in.chunk(); f.ID == nil {
				f.ID = []byte{}
			}
		}
		if flags&frameSameID != 0 {
			f.ID = last.ID
		}
		if flags&frameTime != 0 {
			f.Time += in.varint()
		}
		if flags&frameMeta != 0 {
			if f.Meta = in.chunk(); f.Meta == nil {
				f.Meta = []byte{}
			}
		}
		f.Block = in.chunk()
		if in.bad {
			return nil, fmt.Errorf("%w: frame %d of %d", ErrGarbled, i, n)
		}
		frames = append(frames, f)
		last = f
	}
	if len(in.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the frames", ErrGarbled, len(in.b))
	}
	return frames, nil
}
