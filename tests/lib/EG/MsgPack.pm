package EG::MsgPack;

# MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) in pure Perl, for tests that
# speak to a daemon's RPC socket without sharing a line with it.
#
# Perl does not tell text from bytes or 1 from "1" reliably, so: a scalar that was last used as a
# number packs as one, any other as str; mp_bin(), mp_str(), mp_int(), mp_raw() say it outright;
# JSON::PP::true/false are booleans; undef is nil. Decoded: str and bin are byte
# strings, booleans are JSON::PP's, ext is a blessed [type, data].

use strict;
use warnings;
use B ();
use Exporter 'import';
use JSON::PP ();

our @EXPORT = qw(mp_pack mp_unpack mp_unpack_one mp_bin mp_str mp_int mp_raw);

sub mp_bin { my $v = shift; return bless \$v, 'EG::MsgPack::Bin' }
sub mp_str { my $v = shift; return bless \$v, 'EG::MsgPack::Str' }
sub mp_int { my $v = shift; return bless \$v, 'EG::MsgPack::Int' }
sub mp_raw { my $v = shift; return bless \$v, 'EG::MsgPack::Raw' } # already packed

sub _bin
{
	my ($b) = @_;
	my $n = length $b;
	return pack('CCa*', 0xc4, $n, $b) if $n < 256;
	return pack('Cna*', 0xc5, $n, $b) if $n < 65536;
	return pack('CNa*', 0xc6, $n, $b);
}

sub _str
{
	my ($s) = @_;
	utf8::encode($s) if utf8::is_utf8($s);
	my $n = length $s;
	return pack('Ca*', 0xa0 | $n, $s) if $n < 32;
	return pack('CCa*', 0xd9, $n, $s) if $n < 256;
	return pack('Cna*', 0xda, $n, $s) if $n < 65536;
	return pack('CNa*', 0xdb, $n, $s);
}

sub _int
{
	my ($i) = @_;
	if ($i >= 0) {
		return pack('C', $i) if $i < 128;
		return pack('CC', 0xcc, $i) if $i < 256;
		return pack('Cn', 0xcd, $i) if $i < 65536;
		return pack('CN', 0xce, $i) if $i < 4294967296;
		return pack('CQ>', 0xcf, $i);
	}
	return pack('c', $i) if $i >= -32;
	return pack('Cc', 0xd0, $i) if $i >= -128;
	return pack('Cs>', 0xd1, $i) if $i >= -32768;
	return pack('Cl>', 0xd2, $i) if $i >= -2147483648;
	return pack('Cq>', 0xd3, $i);
}

sub mp_pack
{
	my ($v) = @_;
	return "\xc0" if !defined $v;
	my $ref = ref $v;
	if (!$ref) {
		my $flags = B::svref_2object(\$v)->FLAGS;
		return _int($v) if $flags & B::SVf_IOK && !($flags & B::SVf_POK);
		return pack('Cd>', 0xcb, $v) if $flags & B::SVf_NOK && !($flags & B::SVf_POK);
		return _str($v);
	}
	return _bin($$v) if $ref eq 'EG::MsgPack::Bin';
	return _str($$v) if $ref eq 'EG::MsgPack::Str';
	return _int($$v) if $ref eq 'EG::MsgPack::Int';
	return $$v if $ref eq 'EG::MsgPack::Raw';
	return $v ? "\xc3" : "\xc2" if $ref eq 'JSON::PP::Boolean';
	if ($ref eq 'ARRAY') {
		my $n = @$v;
		my $head = $n < 16 ? pack('C', 0x90 | $n) : $n < 65536 ? pack('Cn', 0xdc, $n) : pack('CN', 0xdd, $n);
		return join '', $head, map { mp_pack($_) } @$v;
	}
	if ($ref eq 'HASH') {
		my $n = keys %$v;
		my $head = $n < 16 ? pack('C', 0x80 | $n) : $n < 65536 ? pack('Cn', 0xde, $n) : pack('CN', 0xdf, $n);
		return join '', $head, map { (_str("$_"), mp_pack($v->{$_})) } sort keys %$v;
	}
	die "mp_pack: cannot pack $ref";
}

my %FIXED = (
	0xcc => [ 1, 'C' ], 0xcd => [ 2, 'n' ], 0xce => [ 4, 'N' ], 0xcf => [ 8, 'Q>' ],
	0xd0 => [ 1, 'c' ], 0xd1 => [ 2, 's>' ], 0xd2 => [ 4, 'l>' ], 0xd3 => [ 8, 'q>' ],
	0xca => [ 4, 'f>' ], 0xcb => [ 8, 'd>' ],
);
my %SIZED = (
	0xc4 => [ 1, 'C' ], 0xc5 => [ 2, 'n' ], 0xc6 => [ 4, 'N' ],
	0xd9 => [ 1, 'C' ], 0xda => [ 2, 'n' ], 0xdb => [ 4, 'N' ],
);

# (value, bytes used) of the first object in $$data from $at on, or () when it is not complete.
sub mp_unpack_one
{
	my ($data, $at) = @_;
	my $pos = $at // 0;
	my $start = $pos;
	my $value = eval { _get($data, \$pos) };
	if ($@) {
		return () if $@ eq "short\n";
		die $@;
	}
	return ($value, $pos - $start);
}

sub mp_unpack
{
	my ($data) = @_;
	my ($value, $used) = mp_unpack_one(\$data, 0);
	die "mp_unpack: incomplete object" if !defined $used;
	die "mp_unpack: bytes after the object" if $used != length $data;
	return $value;
}

sub _need { die "short\n" if length(${ $_[0] }) - ${ $_[1] } < $_[2]; return }

sub _take
{
	my ($data, $pos, $n) = @_;
	_need($data, $pos, $n);
	my $v = substr $$data, $$pos, $n;
	$$pos += $n;
	return $v;
}

sub _list
{
	my ($data, $pos, $n) = @_;
	return [ map { _get($data, $pos) } 1 .. $n ];
}

sub _map
{
	my ($data, $pos, $n) = @_;
	my %h;
	for (1 .. $n) {
		my $k = _get($data, $pos);
		$h{$k} = _get($data, $pos);
	}
	return \%h;
}

sub _get
{
	my ($data, $pos) = @_;
	my $c = ord _take($data, $pos, 1);
	return $c if $c < 0x80;
	return $c - 256 if $c >= 0xe0;
	return _take($data, $pos, $c & 31) if ($c & 0xe0) == 0xa0;
	return _list($data, $pos, $c & 15) if ($c & 0xf0) == 0x90;
	return _map($data, $pos, $c & 15) if ($c & 0xf0) == 0x80;
	return undef if $c == 0xc0;
	return JSON::PP::false() if $c == 0xc2;
	return JSON::PP::true() if $c == 0xc3;
	if (my $f = $FIXED{$c}) {
		return unpack $f->[1], _take($data, $pos, $f->[0]);
	}
	if (my $s = $SIZED{$c}) {
		return _take($data, $pos, unpack $s->[1], _take($data, $pos, $s->[0]));
	}
	return _list($data, $pos, unpack 'n', _take($data, $pos, 2)) if $c == 0xdc;
	return _list($data, $pos, unpack 'N', _take($data, $pos, 4)) if $c == 0xdd;
	return _map($data, $pos, unpack 'n', _take($data, $pos, 2)) if $c == 0xde;
	return _map($data, $pos, unpack 'N', _take($data, $pos, 4)) if $c == 0xdf;
	my $ext = $c >= 0xd4 && $c <= 0xd8 ? 1 << ($c - 0xd4)
		: $c == 0xc7 ? unpack('C', _take($data, $pos, 1))
		: $c == 0xc8 ? unpack('n', _take($data, $pos, 2))
		: $c == 0xc9 ? unpack('N', _take($data, $pos, 4))
		: die sprintf "mp_unpack: bad byte 0x%02x\n", $c;
	my $type = unpack 'c', _take($data, $pos, 1);
	return bless [ $type, _take($data, $pos, $ext) ], 'EG::MsgPack::Ext';
}

1;
