#!/usr/bin/env perl

# The canonical form against Python's own json.dumps(json.loads(text), sort_keys=True), byte for
# byte: chosen documents, every power of two, random documents, and damaged ones (both must refuse
# the same).

use strict;
use warnings;
use File::Temp qw(tempdir);
use FindBin;
use Test::More;

my ($python) = grep { -x && !system("$_ -c 'import json' 2>/dev/null") }
	map { "$_/python3" } grep { length } split /:/, $ENV{PATH} // '';
plan skip_all => 'needs python3 with its json module' unless $python;
my $tool = ($ENV{EG_TESTS} // "$FindBin::Bin/../../build/tests") . '/common/canonical_tool';
plan skip_all => "needs $tool: make test-build" unless -x $tool || $ENV{EG_TESTS};

my $dir = tempdir(CLEANUP => 1);

# Documented differences are made errors on this side too: NaN, Infinity and 1e400 (no JSON), a
# byte order mark. What is not UTF-8 is an error on both sides.
open my $script, '>', "$dir/canonical.py" or die "canonical.py: $!";
print $script <<'PYTHON';
import json, sys

def refuse(text):
    raise ValueError("not JSON: " + text)

def to_float(text):
    value = float(text)
    if value in (float("inf"), float("-inf")):
        refuse(text)
    return value

def to_int(text):  # a Python before 3.11 has no limit of its own
    return int(text) if len(text.lstrip("-")) <= 4300 else refuse(text)

data = sys.stdin.buffer.read()
at = 0
out = []
while at < len(data):
    end = data.index(b"\n", at)
    n = int(data[at:end])
    text = data[end + 1:end + 1 + n]
    at = end + 2 + n
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=refuse, parse_float=to_float,
                           parse_int=to_int)
        out.append("ok " + json.dumps(value, sort_keys=True))
    except (ValueError, RecursionError):
        out.append("error")
sys.stdout.write("\n".join(out) + "\n")
PYTHON
close $script or die $!;

sub answers
{
	my ($name, $command) = @_;
	system("$command < $dir/in > $dir/$name") == 0 or return;
	open my $in, '<:raw', "$dir/$name" or die "$name: $!";
	chomp(my @lines = <$in>);
	return \@lines;
}

sub shown
{
	my ($bytes) = @_;
	$bytes =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ge;
	return length $bytes > 300 ? substr($bytes, 0, 300) . '...' : $bytes;
}

# All documents of a group in one go. $expect: 'ok' or 'error' for all of them, or undef.
sub compare
{
	my ($name, $expect, @docs) = @_;
	open my $out, '>:raw', "$dir/in" or die "in: $!";
	print $out length $_, "\n$_\n" for @docs;
	close $out or die $!;
	my $theirs = answers('theirs', "$python $dir/canonical.py");
	my $ours = answers('ours', $tool);
	return fail("$name: both programs ran") unless $theirs && $ours;
	my ($wrong, $n_ok) = (0, 0);
	for my $i (0 .. $#docs) {
		my ($t, $o) = ($theirs->[$i] // 'nothing', $ours->[$i] // 'nothing');
		my $same = $t eq 'error' ? $o =~ /^error / : $o eq $t;
		$same &&= $o =~ /^$expect/ if $expect;
		$n_ok++ if $o =~ /^ok/;
		next if $same;
		diag('document ' . shown($docs[$i]), "\npython   " . shown($t), "\nours     " . shown($o))
			if $wrong++ < 5;
	}
	is $wrong, 0, "$name: " . @docs . " documents ($n_ok accepted)";
	return $n_ok;
}

compare('chosen', 'ok',
	'null', ' true ', "\tfalse\r\n", '0', '-0', '-0.0', '-0e0', '0.0', '0e5', '[-0, -0.0, -0E1]',
	'1e-05', '1E5', '1e16', '1E+16', '1e15', '1e-4', '123456789012345.0', '0.1', '5e-324', '2.5e-324', '1e-400',
	'1.7976931348623157e308', '1.7976931348623158e308', '2.2250738585072011e-308', '9007199254740993.0',
	'0.30000000000000004', '100000000000000000000.0', '1e22', '1e23', '-1.5E-7',
	'1234567890123456789012345678901234567890', '-9999999999999999999999999999999999999999', '9' x 4300, '-' . '9' x 4300,
	'1' x 400, '[' . '1' x 400 . ', 2]', '0.' . '3' x 5000, '1' . '0' x 300 . '.5', '0.' . '0' x 400 . '1e401',
	'""', '"\u007f"', "\"\x7f\"", "\"\xe2\x80\xa8\xe2\x80\xa9\"", '"\u2028\/\"\\\\\b\f\n\r\t"', '"\u0000\u001f\u0020\u0041\u00e9"',
	"\"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"", '"\uD83D\uDE00 \ud83d\ude00"', '"\ud800"', '"\udc00\ud800"', '"\ud83d\ud83d\ude00"',
	'"\ud83d\u0041\ude00"', '"\uffff\ufffe\ufffd"', "\"\xf4\x8f\xbf\xbf\xef\xbf\xbf\xed\x9f\xbf\"", '"\u00e9\u00E9\uABCD\uabcd"',
	'[]', '{}', '[ ]', '{ }', '[[],{},[[]],[{}]]', '[1]', '[1,2.0,-3e0]', '[1,"a"]', '[1,[2],{"a":3}]', '[1.0,true,null]', '[[1,2],[3.5]]',
	'{"b":1,"a":2}', '{"a":1,"a":2}', '{"a":1,"\u0061":2,"b":3,"a":{"x":[]}}', '{"":1,"\u0000":2," ":3}', '{"a":{"c":1,"b":[{"z":1,"y":2}]}}',
	'{"aa":1,"a":2,"A":3,"a\u0000":4,"_":5,"~":6,"\u007f":7,"\u0080":8}',
	# Above U+FFFF sorts above U+FFFF, and lone halves where their number says.
	'{"\ud83d\ude00":1,"\uffff":2,"\ud800":3,"\udfff":4,"\ue000":5,"z":6,"\ud83d":7}',
	"{\"\xf0\x9f\x98\x80\":1,\"\xef\xbf\xbf\":2,\"\xe2\x82\xac\":3,\"\\ud83d\\ude00\":4}",
	'[' x 128 . ']' x 128, '{"a":' x 127 . '[1.50]' . '}' x 127,
	'{"model":"text-embedding-3-small","input":["a",[1,2],"\u00fc"],"dimensions":3,"user":null,"encoding_format":"float"}');

compare('refused', 'error',
	'', ' ', "\xef\xbb\xbf{}", 'NaN', 'Infinity', '-Infinity', '[NaN]', '1e400', '-1e400', '[1e309]', '1' x 400 . '.0', '9' x 4301,
	'-' . '9' x 4301, '[' . '9' x 4301 . ']', '{} {}', '[1,]', '{"a":1,}', '01', '-', '+1', '.5', '1.', '1e', "'a'", '"', '"\x41"',
	"\"\n\"", "\"\x01\"", "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\"\xf4\x90\x80\x80\"", '"\ud80"', '{"a"}', '{1:2}', '[1 2]',
	'{"a":1 "b":2}', ']', '[}', "1\0", "\xc2\xa01", 'nulll', '/**/1', '[1,2', '{"a":', '"a\\');

{	# 2**k as floats, and 2**k as integers from 2**0
	my @powers;
	push @powers, sprintf '%.17e', 2**$_ for -1074 .. 1023;
	push @powers, "-$_" for @powers[0 .. 20];
	push @powers, map { sprintf '%.0f', 2**$_ } 0 .. 1023;
	push @powers, map { sprintf '%.1f', 2**$_ } 0 .. 60;
	compare('powers of two', 'ok', @powers);
	compare('powers of two in one array', 'ok', '[' . join(',', @powers) . ']');
	compare('powers of ten', 'ok', map { ("1e$_", "-9.999999999999999e$_") } -330 .. 307);
}

# ---- random documents ----

my $seed = $ENV{SEED} // 20240229;
diag "SEED=$seed" if $ENV{SEED};
srand $seed;
sub pick { return $_[ rand @_ ] }

sub some_string
{
	my $s = '';
	for (1 .. int rand pick(3, 8, 40)) {
		my $kind = int rand 12;
		if ($kind < 5) { $s .= pick('a' .. 'z', 'A' .. 'Z', ' ', 0 .. 9, '/', '~') }
		elsif ($kind == 5) { $s .= pick(map { "\\$_" } qw(" \\ / b f n r t)) }
		elsif ($kind == 6) { $s .= sprintf pick('\u%04x', '\u%04X'), int rand 65536 }
		elsif ($kind == 7) { $s .= sprintf '\u%04x', pick(0 .. 0x20, 0x7e .. 0xa0, 0xd7ff .. 0xd801, 0xdbff .. 0xdc01, 0xdfff, 0xe000, 0xffff) }
		elsif ($kind == 8) { my $c = int rand 0x10000 - 0x800; $c += 0x800 if $c >= 0xd800; $c += 0x5d if $c < 0x5d; utf8::encode(my $u = chr $c); $s .= $u }
		elsif ($kind == 9) { utf8::encode(my $u = chr(0x10000 + int rand 0x100000)); $s .= $u }
		elsif ($kind == 10) { my $c = int rand 0x100000; $s .= sprintf '\u%04x\u%04X', 0xd800 + ($c >> 10), 0xdc00 + ($c & 0x3ff) }
		else { $s .= "\x7f" }
	}
	return "\"$s\"";
}

sub some_digits { return join '', map { int rand 10 } 1 .. pick(1, 2, 3, 8, 16, 17, 18, 19, 20, 40) }

sub some_number
{
	my $kind = int rand 8;
	return pick('0', '-0', '1', '-1', '0.0', '-0.0', '1e0', '5e-324') if $kind == 0;
	return pick('', '-') . pick(1 .. 9) . pick('', some_digits()) if $kind < 3;
	return unpack('d', pack 'Q', int(rand 2**32) << 32 | int rand 2**32) =~ /^(-?[0-9.]+(?:e[-+]?[0-9]+)?)$/ ? $1 : '7' if $kind == 3;
	return sprintf '%.*g', pick(9, 15, 16, 17), unpack 'f', pack 'f', rand(2) - 1 if $kind == 4;
	return pick('', '-') . pick('0', pick(1 .. 9) . some_digits()) . '.' . some_digits() . pick('', '', 'e' . pick('', '+', '-') . int rand 300);
}

sub space { return pick('', '', '', ' ', "\n", "\t\r ") }

sub some_value
{
	my ($depth) = @_;
	my $kind = int rand($depth > 5 ? 6 : 12);
	return pick('null', 'true', 'false') if $kind == 0;
	return some_number() if $kind < 3;
	return some_string() if $kind < 6;
	my $n = int rand 7;
	return '[' . space() . join(space() . ',' . space(), map { some_number() } 1 .. $n) . space() . ']' if $kind == 6;
	return '[' . space() . join(space() . ',' . space(), map { some_value($depth + 1) } 1 .. $n) . space() . ']' if $kind < 9;
	my @keys = map { rand() < 0.5 ? '"' . pick('a' .. 'f', '\u0061', '', 'ab', "\x7f") . '"' : some_string() } 1 .. $n;
	return '{' . space() . join(space() . ',' . space(),
		map { $_ . space() . ':' . space() . some_value($depth + 1) } @keys) . space() . '}';
}

my @documents = map { space() . some_value(rand() < 0.8 ? 0 : 5) . space() } 1 .. 4000;
my $n_ok = compare('random', undef, @documents);
cmp_ok $n_ok, '>', 3500, 'most of them are JSON';

my @damaged = map {
	my $text = $_;
	for (1 .. pick(1, 1, 2)) {
		my $at = int rand length $text;
		my $how = int rand 4;
		if ($how == 0) { substr($text, $at, 1) = chr int rand 256 }
		elsif ($how == 1) { substr($text, $at, 1) = '' }
		elsif ($how == 2) { substr($text, $at, 0) = pick(split //, '[]{},:"\\0-.eE+u ') }
		else { $text = substr $text, 0, $at }
	}
	$text;
} grep { length > 2 } @documents;
$n_ok = compare('damaged', undef, @damaged);
cmp_ok $n_ok, '<', @damaged * 0.8, 'many of them are no JSON any more';

# Large: many members, in reverse, with duplicates; and many floats.
compare('large', 'ok',
	'{' . join(',', map { sprintf '"k%d":%d', $_ % 15000, $_ } reverse 1 .. 20000) . '}',
	'[' . join(',', map { sprintf '%.17g', rand } 1 .. 20000) . ']',
	'["' . 'x' x 100000 . "\xc3\xa9" x 100000 . '"]');

done_testing;
