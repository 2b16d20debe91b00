#!/usr/bin/env perl

# The largest answer there is, 2,048 embeddings of 3,072 numbers as text, streamed through the pod: what
# it costs in memory beside the arena, and what those who ask for little meanwhile feel.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use EG::Pod;
use List::Util qw(max);

my $sanitized = ($ENV{EG_BIN} // '') =~ /sanitize/;
my $pod = EG::Pod->new(gatewayds => 1, env => { PROVIDER => 'mock', STORE => 'none' });
my ($hashd, $gatewayd) = ($pod->hashd, $pod->gatewayd(0));

# Memory that is the process's own, the shared arena apart.
sub uss_kb
{
	my ($sum, $counts) = (0, 1);
	for (split /\n/, slurp('/proc/' . $_[0]->pid . '/smaps')) {
		$counts = !/memfd:arena/ if /^[0-9a-f]+-[0-9a-f]+ /;
		$sum += $1 if $counts && /^Private_(?:Clean|Dirty):\s+(\d+)/;
	}
	return $sum;
}

sub post
{
	my ($input) = @_;
	return { url => $pod->url, method => 'POST', target => '/v1/embeddings', headers => [ 'Content-Type' => 'application/json' ],
		body => json_encode({ model => 'text-embedding-3-large', encoding_format => 'float', input => $input }) };
}

# Read in pieces and thrown away; what was used at most meanwhile.
sub stream
{
	my ($request) = @_;
	my $c = IO::Socket::INET->new(PeerAddr => $hashd->address) or die $!;
	print $c "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
		. 'Content-Length: ' . length($request->{body}) . "\r\n\r\n$request->{body}";
	$c->flush;
	my ($bytes, $start, $end, @seen) = (0, '', '', 0, 0);
	my @small_ms;
	while (my $n = sysread $c, my $data, 1 << 20) {
		$start = substr $data, 0, 2000 if !$bytes;
		$end = substr $end . $data, -40;
		next if ($bytes += $n) % 64;
		my @now = (uss_kb($hashd), uss_kb($gatewayd));
		$seen[$_] = max($seen[$_], $now[$_]) for 0, 1;
		my ($r) = http_many([ post('a small one') ]);
		push @small_ms, $r->{ms} if $r->{status} == 200;
	}
	return { bytes => $bytes, start => $start, end => $end, hashd => $seen[0], gatewayd => $seen[1], ms => [ sort { $a <=> $b } @small_ms ] };
}

my $large = post([ map { my $i = $_; join ' ', map { 'w' . ($i * 7 + $_ * 13) } 1 .. 300 } 1 .. 2048 ]);
http_many([ post('a small one') ]);
my $bought = stream($large);
like $bought->{start}, qr{^HTTP/1.1 200 }, 'bought';
my @before = (uss_kb($hashd), uss_kb($gatewayd));
my $hit = stream($large);
like $hit->{start}, qr{^X-Cache-Hits: 2048/2048\r$}mi, 'all from memory';
cmp_ok $hit->{bytes}, '>', 125e6, 'the size of it';
like $hit->{end}, qr/"total_tokens":\d+\}\}/, 'to the end';
my $bound = $sanitized ? 1 << 20 : 8 << 10; # a sanitizer has memory of its own
cmp_ok $hit->{hashd} - $before[0], '<', $bound, 'hashd needs less than 8 MB for it';
cmp_ok $hit->{gatewayd} - $before[1], '<', $bound, 'gatewayd needs less than 8 MB for it';
note "KiB more: hashd ", $hit->{hashd} - $before[0], ", gatewayd ", $hit->{gatewayd} - $before[1];
my @ms = @{ $hit->{ms} };
cmp_ok scalar @ms, '>', 5, 'small requests were answered meanwhile';
cmp_ok $ms[ @ms / 2 ], '<', 100, 'and did not wait for it';

done_testing;
