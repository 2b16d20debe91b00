package EG::Reindex;

# A team indexes its documents, and again after a few of them changed: what does the provider get paid?
#
#   my $result = EG::Reindex::run(EG::Pod->new(gatewayds => 2), chunks => 10_000, dimensions => 1536,
#           say => sub { print @_ });
#
# Three kinds of client index the same chunks at the same time, each in its own order of batches of 1 to
# 2,048: `python` (base64, ", " and ": ", \uXXXX escapes), `js` (base64, no blanks, UTF-8), `curl` (numbers,
# keys in reverse order, line feeds). 12 % of the chunks repeat another one's text. Then the pod is
# restarted, 5 % of the chunks get a new text, and all is indexed again with other batch boundaries.
# Every vector is compared with the one that the provider makes of its text, bit for bit; usage with
# what the answer's own tokens were.
#
# Beside it: what a cache of whole requests (the key is the canonical form of the body, so spelling does
# not matter; it never forgets and lets nobody wait twice for the same body) pays for these very requests.
#
# Returns { requests, vectors, wrong => [sentences], distinct, distinct_tokens, bought, paid_tokens, provider_calls,
# whole_tokens, usage, answered_tokens, saved_tokens, paid_by_metrics, seconds => [first, second] }: usage is
# what the answers said; the three after it are the gatewayds' counters.

use strict;
use utf8;
use warnings;
use Digest::SHA qw(sha256);
use MIME::Base64 qw(decode_base64 encode_base64);
use POSIX ();
use Storable ();
use Time::HiRes qw(time);

use EG::HTTP;

use constant { REPEATED => 0.12, CHANGED => 0.05, MAX_BATCH => 2048, MODEL => 'text-embedding-3-small' };

my @WORDS = ('invoice', 'Überweisung', 'größe', 'ledger', 'naïve', '東京', 'data', '"quoted"', 'back\\slash', "tab\there", '😀', 'and', 'of', 'the',
	'shipment', 'contract', 'renewal', "line\nfeed", '</script>', 'ελλάδα');

# A random number of our own: the same sequence everywhere.
sub _dice { my ($state) = @_; $$state = ($$state * 1103515245 + 12345) & 0x7fffffff; return $$state / 0x80000000 }

sub _text
{
	my ($name, $dice) = @_;
	return "chunk $name: " . join ' ', map { $WORDS[ _dice($dice) * @WORDS ] } 1 .. 8 + _dice($dice) * 40;
}

# As tests/lib/fake_openai counts.
sub _tokens { my ($text) = @_; return 1 + (() = $text =~ /[^ \t\n\r\f]+/g) }

# As tests/lib/fake_openai makes them: packed float32.
sub _vector
{
	my ($text, $dimensions) = @_;
	utf8::encode(my $bytes = $text);
	my $block = sha256(MODEL . "\0$dimensions\0$bytes");
	my $out = '';
	while (length $out < 2 * $dimensions) {
		$block = sha256($block);
		$out .= $block;
	}
	my @v = unpack "s<$dimensions", $out;
	my $sum = 0;
	$sum += $_ * $_ for @v;
	my $scale = $sum ? 1 / sqrt $sum : 0;
	return pack 'f<*', map { $_ * $scale } @v;
}

# ---- Bodies ----

my %ESCAPE = ("\n" => '\n', "\t" => '\t', '"' => '\"', '\\' => '\\\\');

sub _quote_utf8
{
	my ($text) = @_;
	$text =~ s/([\n\t"\\])/$ESCAPE{$1}/g;
	utf8::encode($text);
	return qq("$text");
}

sub _quote_ascii
{
	my ($text) = @_;
	$text =~ s/([\n\t"\\])/$ESCAPE{$1}/g;
	$text =~ s/([^\x20-\x7e])/join '', map { sprintf '\u%04x', $_ } unpack 'n*', _utf16($1)/ge;
	return qq("$text");
}

sub _utf16
{
	my $c = ord shift;
	return pack 'n', $c if $c < 0x10000;
	$c -= 0x10000;
	return pack 'n2', 0xd800 + ($c >> 10), 0xdc00 + ($c & 0x3ff);
}

my %CLIENTS = (
	python => sub {
		my ($texts, $dimensions) = @_;
		my $input = @$texts == 1 ? _quote_ascii($texts->[0]) : '[' . join(', ', map { _quote_ascii($_) } @$texts) . ']';
		return qq({"input": $input, "model": "${\MODEL}", "dimensions": $dimensions, "encoding_format": "base64"});
	},
	js => sub {
		my ($texts, $dimensions) = @_;
		return qq({"model":"${\MODEL}","input":[) . join(',', map { _quote_utf8($_) } @$texts)
			. qq(],"dimensions":$dimensions,"encoding_format":"base64"});
	},
	curl => sub {
		my ($texts, $dimensions) = @_;
		my $input = @$texts == 1 ? _quote_utf8($texts->[0]) : "[\n" . join(",\n", map { '    ' . _quote_utf8($_) } @$texts) . "\n  ]";
		return qq({\n  "model": "${\MODEL}",\n  "input": $input,\n  "dimensions": $dimensions\n}\n);
	},
);
my %AGENT = (python => 'OpenAI/Python 2.8.1', js => 'OpenAI/JS 6.49.0', curl => 'curl/7.88.1');

# Many small batches, some large ones.
sub _batch_size { my ($dice) = @_; return int MAX_BATCH**_dice($dice) }

# ---- One client ----

# The vectors of an answer, packed, by index; dies with what is wrong with its shape.
sub _take_apart
{
	my ($body, $n) = @_;
	my @vectors;
	while ($body =~ /\{"object":\s*"embedding",\s*"index":\s*(\d+),\s*"embedding":\s*(?:"([^"]*)"|\[([^\]]*)\])/g) {
		die "index $1 is there twice\n" if defined $vectors[$1];
		$vectors[$1] = defined $2 ? decode_base64($2) : pack 'f<*', split /,/, $3;
	}
	die scalar(@vectors) . " embeddings instead of $n\n" if @vectors != $n || grep { !defined } @vectors;
	my ($usage) = $body =~ /"total_tokens":\s*(\d+)/ or die "no usage\n";
	return ($usage, @vectors);
}

# Index all of @$texts; returns what happened, to be merged.
sub _index
{
	my ($client, $url, $texts, $seed, $o) = @_;
	my $dice = $seed;
	my (%whole, %vectors, @wrong);
	my ($requests, $n, $usage_sum, $at) = (0, 0, 0, 0);
	my $c = EG::HTTP->new($url, timeout => 120);
	while ($at < @$texts) {
		my $size = _batch_size(\$dice);
		$size = MAX_BATCH if $at == 0;
		$size = @$texts - $at if $size > @$texts - $at;
		my @batch = @$texts[ $at .. $at + $size - 1 ];
		$at += $size;
		$requests++;
		my $r = $c->request('POST', '/v1/embeddings', [ Authorization => 'Bearer sk-reindex', 'Content-Type' => 'application/json',
			'User-Agent' => $AGENT{$client} ], $CLIENTS{$client}->(\@batch, $o->{dimensions}));
		# One text alone and a list of one are two requests to such a cache, and so are two formats.
		my $tokens = 0;
		$tokens += _tokens($_) for @batch;
		my $whole = join "\0", $client eq 'curl' ? 'float' : 'base64', @batch == 1 && $client ne 'js' ? 'one' : 'list', map { _quote_ascii($_) } @batch;
		$whole{ sha256($whole) } = $tokens;
		if ($r->{status} != 200) {
			push @wrong, "$client: status $r->{status}: " . substr $r->{body}, 0, 200;
			next;
		}
		my ($usage, @got) = eval { _take_apart($r->{body}, scalar @batch) };
		if ($@) {
			push @wrong, "$client: batch of $size: $@";
			next;
		}
		$usage_sum += $usage;
		for my $i (0 .. $#batch) {
			my $expected = $vectors{ $batch[$i] } //= _vector($batch[$i], $o->{dimensions});
			push @wrong, "$client: the wrong vector at $i of $size" if $got[$i] ne $expected && @wrong < 20;
			$n++;
		}
		%vectors = () if keys %vectors > 4000;
	}
	return { requests => $requests, vectors => $n, usage => $usage_sum, wrong => \@wrong, whole => \%whole };
}

# All clients at once, each a process.
sub _pass
{
	my ($url, $texts, $seed, $o) = @_;
	my @running;
	for my $client (sort keys %CLIENTS) {
		pipe my $read, my $write or die "pipe: $!";
		my $pid = fork // die "fork: $!";
		if (!$pid) {
			close $read;
			my $result = eval { _index($client, $url, $texts, $seed + ord $client, $o) } // { wrong => [ "$client: $@" ], whole => {} };
			Storable::nstore_fd($result, $write);
			close $write;
			POSIX::_exit(0);
		}
		close $write;
		push @running, [ $pid, $read, $client ];
	}
	my @results;
	for (@running) {
		my ($pid, $read, $client) = @$_;
		push @results, eval { Storable::fd_retrieve($read) } // { wrong => ["$client: died"], whole => {} };
		waitpid $pid, 0;
	}
	return @results;
}

sub _metric
{
	my ($pod, $name) = @_;
	my $sum = 0;
	for my $d ($pod->gatewayds) {
		$sum += $_ for http('GET', $d->url . '/metrics')->{body} =~ /^\Q$name\E(?:\{[^}]*\})? (\S+)$/mg;
	}
	return $sum;
}

sub run
{
	my ($pod, %o) = @_;
	my $say = $o{say} // sub { };
	my $dice = 4711;
	my @texts;
	for my $i (0 .. $o{chunks} - 1) {
		push @texts, $i && _dice(\$dice) < REPEATED ? $texts[ _dice(\$dice) * @texts ] : _text($i, \$dice);
	}
	my %result = (wrong => [], seconds => [], map { $_ => 0 } qw(requests vectors usage answered_tokens saved_tokens paid_by_metrics));
	my (%whole, %distinct);
	for my $pass (0, 1) {
		if ($pass) {
			$say->("restart, " . int($o{chunks} * CHANGED) . " chunks change\n");
			$pod->restart;
			my %changed;
			while (keys %changed < int $o{chunks} * CHANGED) {
				my $i = int _dice(\$dice) * @texts;
				next if $changed{$i}++;
				$texts[$i] = _text("$i, second edition", \$dice);
			}
		}
		$distinct{$_} = _tokens($_) for @texts;
		my $start = time;
		for my $r (_pass($pod->url, \@texts, 1000 + $pass * 17, \%o)) {
			$result{$_} += $r->{$_} // 0 for qw(requests vectors usage);
			push @{ $result{wrong} }, @{ $r->{wrong} };
			%whole = (%whole, %{ $r->{whole} });
		}
		push @{ $result{seconds} }, time - $start;
		$result{answered_tokens} += _metric($pod, 'processed_tokens_total');
		$result{saved_tokens} += _metric($pod, 'saved_tokens_total');
		$result{paid_by_metrics} += _metric($pod, 'openai_tokens_used_total');
		$say->(sprintf "pass %d: %.1f s\n", $pass + 1, time - $start);
	}
	my $stats = $pod->openai->stats;
	$result{provider_calls} = $stats->{calls};
	$result{bought} = $stats->{inputs};
	$result{paid_tokens} = $stats->{tokens};
	$result{distinct} = keys %distinct;
	$result{distinct_tokens} += $_ for values %distinct;
	$result{whole_tokens} += $_ for values %whole;
	return \%result;
}

1;
