package load

// mark is what an event bears: its number in its stream, from 0, when it was
// sent, and which stream it belongs to.
type mark struct {
	seq uint32
	at  int64 // µs on the load's clock
	src int
}

// A mark is written as "@" and three decimal numbers of fixed width, so that a
// prepared event is made new by writing digits in place.
const (
	seqDigits = 9
	atDigits  = 12
	srcDigits = 5
	markLen   = 1 + seqDigits + 1 + atDigits + 1 + srcDigits + 1
)

// MinSize is the least size of an event's data, in bytes.
const MinSize = markLen

// fill is an event's data of this size, without its mark: letters that neither
// JSON nor an event stream needs to escape.
func fill(size int) []byte {
	b := make([]byte, max(size, markLen))
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return b
}

// put writes m over the beginning of b.
func (m mark) put(b []byte) {
	b[0] = '@'
	digits(b[1:1+seqDigits], int64(m.seq))
	b[1+seqDigits] = ' '
	digits(b[2+seqDigits:2+seqDigits+atDigits], m.at)
	b[2+seqDigits+atDigits] = ' '
	digits(b[3+seqDigits+atDigits:markLen-1], int64(m.src))
	b[markLen-1] = ' '
}

// readMark reads the mark that begins at the first "@" of b, where it stands
// within the first few bytes: some programs send the data as a JSON text.
func readMark(b []byte) (mark, bool) {
	i := 0
	for i < len(b) && i < 8 && b[i] != '@' {
		i++
	}
	if i+markLen > len(b) || b[i] != '@' {
		return mark{}, false
	}
	b = b[i+1:]
	seq, ok1 := number(b[:seqDigits])
	at, ok2 := number(b[seqDigits+1 : seqDigits+1+atDigits])
	src, ok3 := number(b[seqDigits+atDigits+2 : seqDigits+atDigits+2+srcDigits])
	return mark{seq: uint32(seq), at: at, src: int(src)}, ok1 && ok2 && ok3
}

func digits(b []byte, n int64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(n%10)
		n /= 10
	}
}

func number(b []byte) (int64, bool) {
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
