-- Functions the questions share: the 95% Wilson interval of k successes in n trials; null when n is 0.
CREATE MACRO wilson_low(k, n) AS
  CASE WHEN n > 0 THEN greatest(0.0, (k + 1.9207294 - 1.959964 * sqrt(k * (n - k) / n + 0.9603647)) / (n + 3.8414588)) END;
CREATE MACRO wilson_high(k, n) AS
  CASE WHEN n > 0 THEN least(1.0, (k + 1.9207294 + 1.959964 * sqrt(k * (n - k) / n + 0.9603647)) / (n + 3.8414588)) END;
